package server

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/remedy"
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
	f := ledger.New(ledger.KindDeviceState, time.Now(), "person:ann", "dev", nil, []byte(`{"device":"dev","reason":"x","to":"lost"}`))
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

// What is open about a device ends with its life, or when nobody has it any more.
func TestWhatIsOpenAboutADeviceEndsWithIt(t *testing.T) {
	x := newTheft(t)
	ctx, i, caller := t.Context(), x.inst, access.Internal("test")
	move := func(ev device.Event) {
		t.Helper()
		if _, err := i.device.Move(ctx, caller, x.device, ev, nil, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := i.remedy.Suspect(ctx, caller, remedy.Trouble{Device: x.device, Cause: ledger.Ref{Log: ledger.Events, Index: 1 << 40}, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []monitor.Kind{monitor.BadVerdict, monitor.CloneSuspected} {
		if _, err := i.monitor.Raise(ctx, caller, monitor.Finding{Kind: kind, Product: "pump", Subject: x.device, Text: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	move(device.Lose)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := i.remedy.Get(ctx, caller, x.device)
		open, listed := i.monitor.List(ctx, caller, monitor.Query{Subject: x.device, OpenOnly: true})
		if fault.KindOf(err) == fault.NotFound && listed == nil && len(open) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the case: %v; open: %+v, %v", err, open, listed)
		}
	}
}
