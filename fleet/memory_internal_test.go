package fleet

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Who glances waits only where nothing was ever counted, and not for long; not known is told apart from none.
func TestGlances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory[int]
		n := 0
		slow := func(context.Context) (int, error) {
			time.Sleep(5 * time.Second)
			n++
			return n, nil
		}
		begun := time.Now()
		if v, ok, err := m.glance(t.Context(), "", slow); ok || err != nil || v != 0 || time.Since(begun) > patience {
			t.Errorf("before the first count: %d, %v, %v after %s", v, ok, err, time.Since(begun))
		}
		if _, ok, _ := m.glance(t.Context(), "", slow); ok {
			t.Error("a second glance knows what nobody does")
		}
		time.Sleep(6 * time.Second)
		if v, ok, err := m.glance(t.Context(), "", slow); !ok || err != nil || v != 1 {
			t.Errorf("after it: %d, %v, %v", v, ok, err)
		}
		time.Sleep(24 * time.Hour)
		begun = time.Now()
		if v, ok, _ := m.glance(t.Context(), "", slow); !ok || v != 1 || time.Since(begun) >= patience {
			t.Errorf("a day later: %d, %v after %s", v, ok, time.Since(begun))
		}
		time.Sleep(6 * time.Second)
		if v, _, _ := m.glance(t.Context(), "", slow); v != 2 {
			t.Errorf("the glance had nothing counted anew: %d", v)
		}
		time.Sleep(10 * time.Second)
	})
}

func TestGlancesTellOfFailure(t *testing.T) {
	var m memory[int]
	down := errors.New("down")
	if _, ok, err := m.glance(t.Context(), "", func(context.Context) (int, error) { return 0, down }); ok || !errors.Is(err, down) {
		t.Errorf("%v, %v", ok, err)
	}
	if v, ok, err := m.glance(t.Context(), "", func(context.Context) (int, error) { return 7, nil }); !ok || v != 7 || err != nil {
		t.Errorf("after a failure: %d, %v, %v", v, ok, err)
	}
}
