package server

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// unopened is a store whose private parts do not open any more.
type unopened struct{ ledger.ReadStore }

func (unopened) Private(context.Context, wire.Fact) ([]byte, error) {
	return nil, fmt.Errorf("fact: %w", ledger.ErrPrivate)
}

// One private part that is damaged does not keep everything that comes after it from having its consequences.
func TestADamagedPrivatePartHoldsNothingUp(t *testing.T) {
	i := &Instance{log: slog.New(slog.DiscardHandler), logs: &logs{reader: ledger.NewReader(unopened{})}}
	f := ledger.New(ledger.Events, ledger.KindDeviceState, time.Now(), "person:ann", "dev", nil, []byte(`{"device":"dev","reason":"x","to":"lost"}`))
	entry, err := f.Encode(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	followed := ""
	table := map[ledger.Kind][]func(context.Context, access.Caller, seen) error{f.Kind: {func(_ context.Context, _ access.Caller, s seen) error {
		followed = string(s.Data)
		return nil
	}}}
	if err := i.reactTo(t.Context(), access.Caller{}, table, ledger.Ref{Log: ledger.Events}, entry); err != nil || followed != `{"device":"dev","to":"lost"}` {
		t.Errorf("%v, %q", err, followed)
	}
}
