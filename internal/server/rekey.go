package server

import (
	"context"
	"net/http"
	"time"

	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/internal/throttle"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/wire"
)

// openRekey opens the way of devices that lost their keys.
func (i *Instance) openRekey() (err error) {
	i.rekey, err = rekey.New(rekey.Config{
		Guard: i.guard, Store: i.db.Vouchers(), PKI: i.pki, Rekeyer: i.pki.Rekeyer(),
		Model: func(ctx context.Context, product string) (wire.UpdateModel, error) {
			p, err := i.db.Product(ctx, product)
			return p.Model, err
		},
	})
	return err
}

// openForeign opens the door to devices of other makers.
func (i *Instance) openForeign(ctx context.Context) (err error) {
	i.foreign, err = foreign.New(foreign.Config{Guard: i.guard, Store: i.db.Foreign(), Products: i.product, Trust: i.auth.trust, OEM: i.cfg.OEM})
	if err != nil {
		return err
	}
	i.auth.trust.LetIn(i.foreign)
	return i.foreign.Load(ctx)
}

// vouchers serves devices that have no key to show. Who fails often waits, whatever device they say they are.
func (i *Instance) vouchers() http.Handler {
	return throttle.New(time.Now).Watch(est.NewVoucher(i.rekey, i.log), func(_ *http.Request, status int) throttle.Outcome {
		if status == http.StatusUnauthorized || status == http.StatusForbidden {
			return throttle.Failed
		}
		return throttle.Neither
	})
}
