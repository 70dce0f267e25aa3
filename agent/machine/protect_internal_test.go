package machine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// Who brings an image waits for its key, and for no other, beside who asks for it; and as long as it may.
func TestAnImageWaitsForItsKey(t *testing.T) {
	var k codeKeys
	own, other := [wire.ContentKeyID]byte{1}, [wire.ContentKeyID]byte{2}
	brief, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := k.await(brief, own[:]); !errors.Is(err, context.DeadlineExceeded) || k.awaited() {
		t.Errorf("%v, and it waits: %t", err, k.awaited())
	}
	came := make(chan []byte)
	go func() {
		key, err := k.await(t.Context(), own[:])
		if err != nil {
			t.Error(err)
		}
		came <- key
	}()
	for !k.awaited() {
		time.Sleep(time.Millisecond)
	}
	k.put(map[[wire.ContentKeyID]byte][]byte{other: {2}})
	select {
	case key := <-came:
		t.Fatalf("another key came, and it went on with %x", key)
	case <-time.After(20 * time.Millisecond):
	}
	k.put(map[[wire.ContentKeyID]byte][]byte{own: {1}})
	if key := <-came; len(key) != 1 || key[0] != 1 {
		t.Errorf("key %x", key)
	}
	if key, err := k.await(t.Context(), other[:]); err != nil || key[0] != 2 || k.awaited() {
		t.Errorf("one that is there: %x, %v", key, err)
	}
	k.forget()
	if _, ok := k.get(own[:]); ok {
		t.Error("it is not forgotten")
	}
}
