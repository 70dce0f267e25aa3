package crowd

import (
	"context"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
)

// Uniform writes n active devices of one product with the same twin, and nothing else of them: those that a rollout is for. More than 25,000 come in
// whole multiples of that, up to 256. What else is there with an ID that begins with 00 is copied as well.
func Uniform(ctx context.Context, db *store.DB, product string, twin device.Twin, n int, now time.Time) error {
	if n > base && (n%base != 0 || n/base > copies) {
		return fmt.Errorf("a crowd of %d: more than %d come in multiples of that, at most %d", n, base, copies*base)
	}
	c := &crowd{n: min(n, base), now: now.UTC().Truncate(time.Millisecond)}
	for from := 0; from < c.n; from += batch {
		if err := db.Write(ctx, func(tx *store.Tx) error {
			for i := from; i < min(from+batch, c.n); i++ {
				d := one{
					i: i, id: ID(i, c.n), product: product, hardware: "A", state: device.Active, version: twin.Version, release: twin.Release,
					legitimacy: string(device.Genuine), order: "uniform", made: store.Millis(c.now), seen: store.Millis(c.now),
				}
				if err := enter(tx, d, twin); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for k := 1; k < n/base; k++ {
		if err := db.Write(ctx, func(tx *store.Tx) error { return again(tx, copyDevices, digitsOf(k, n/base)) }); err != nil {
			return err
		}
	}
	return nil
}
