package pace_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/pace"
)

type file struct {
	*bytes.Reader
	closed *int
}

func (f file) Close() error {
	*f.closed++
	return nil
}

func opened(n int, closed *int) io.ReadSeekCloser {
	return file{bytes.NewReader(make([]byte, n)), closed}
}

func to(l pace.Limit) *pace.Pacer {
	return pace.New(func(context.Context, string) (pace.Limit, error) { return l, nil })
}

// What a limit lets through is what it says, whoever shares it, and each has its part.
func TestNoMoreLeavesThanTheLimit(t *testing.T) {
	const size = 1 << 20
	for name, c := range map[string]struct {
		limit   pace.Limit
		readers int
		takes   time.Duration // for each of the readers a MiB
		same    bool          // the readers are one device's
	}{
		"nothing is asked for":     {pace.Limit{}, 3, 0, false},
		"one device":               {pace.Limit{Name: "r", Each: 64 << 10}, 1, 16 * time.Second, false},
		"each of three":            {pace.Limit{Name: "r", Each: 64 << 10}, 3, 16 * time.Second, false},
		"three that share it":      {pace.Limit{Name: "r", All: 64 << 10}, 3, 48 * time.Second, false},
		"the least of both":        {pace.Limit{Name: "r", All: 1 << 20, Each: 64 << 10}, 3, 16 * time.Second, false},
		"three of one device":      {pace.Limit{Name: "r", Each: 64 << 10}, 3, 48 * time.Second, true},
		"less than a turn's bytes": {pace.Limit{Name: "r", All: 1 << 10}, 1, 1024 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, began, closed := to(c.limit), time.Now(), 0
				var all sync.WaitGroup
				var mu sync.Mutex
				var ends []time.Duration
				for i := range c.readers {
					device := fmt.Sprint(i)
					if c.same {
						device = "d"
					}
					f, err := p.Slow(t.Context(), device, opened(size, &closed))
					if err != nil {
						t.Fatal(err)
					}
					all.Go(func() {
						if n, err := io.Copy(io.Discard, f); n != size || err != nil {
							t.Error(n, err)
						}
						mu.Lock()
						defer mu.Unlock()
						ends = append(ends, time.Since(began))
						if err := f.Close(); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				first, last := ends[0], ends[len(ends)-1]
				if last > c.takes || last < c.takes*95/100 || first < last*90/100 {
					t.Errorf("the first has it after %s, the last after %s: want %s", first, last, c.takes)
				}
				if closed != c.readers {
					t.Errorf("%d of %d closed", closed, c.readers)
				}
			})
		})
	}
}

// A limit that is changed holds for who comes next and, as it is one for all, for those that are there.
func TestAChangedLimitHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, closed := pace.Limit{Name: "r", All: 16 << 10}, 0
		p := pace.New(func(context.Context, string) (pace.Limit, error) { return l, nil })
		slow, err := p.Slow(t.Context(), "a", opened(1<<20, &closed))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var all sync.WaitGroup
		all.Go(func() { _, _ = io.Copy(io.Discard, slow) })
		time.Sleep(16 * time.Second) // a quarter of it
		l.All = 1 << 20
		if _, err := p.Slow(t.Context(), "b", opened(1, &closed)); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// Who would wait for a turn longer than clients do is turned away, and has a place when another has left.
func TestWhoWouldWaitTooLongComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, closed := to(pace.Limit{Name: "r", All: 1 << 10}), 0
		var there []io.Closer
		for {
			f, err := p.Slow(t.Context(), fmt.Sprint(len(there)), opened(1, &closed))
			if fault.KindOf(err) == fault.Unavailable {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if there = append(there, f); len(there) > 1000 {
				t.Fatal("nobody is turned away")
			}
		}
		if len(there) != 60 {
			t.Errorf("%d have a turn of a second in a minute", len(there))
		}
		for range 2 { // twice closed is one place
			_ = there[0].Close()
		}
		if _, err := p.Slow(t.Context(), "x", opened(1, &closed)); err != nil {
			t.Error(err)
		}
		if _, err := p.Slow(t.Context(), "y", opened(1, &closed)); fault.KindOf(err) != fault.Unavailable {
			t.Error(err)
		}
	})
}

// One device does not take the places of others.
func TestADeviceFetchesSoManyThingsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, closed := to(pace.Limit{Name: "r", All: 1 << 20}), 0
		for i := range 9 {
			if _, err := p.Slow(t.Context(), "d", opened(1, &closed)); (i < 8) != (err == nil) {
				t.Errorf("%d: %v", i, err)
			}
		}
		if _, err := p.Slow(t.Context(), "e", opened(1, &closed)); err != nil {
			t.Error(err)
		}
	})
}

// A request that ends does not wait on, and what cannot be told is no leave to send.
func TestItFailsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := 0
		ctx, cancel := context.WithCancel(t.Context())
		f, err := to(pace.Limit{Name: "r", Each: 1}).Slow(ctx, "d", opened(1<<20, &closed))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(5*time.Second, cancel)
		if n, err := io.Copy(io.Discard, f); n > 7 || !errors.Is(err, context.Canceled) {
			t.Error(n, err)
		}
		lost := errors.New("no database")
		p := pace.New(func(context.Context, string) (pace.Limit, error) { return pace.Limit{}, lost })
		if _, err := p.Slow(t.Context(), "d", opened(1, &closed)); !errors.Is(err, lost) {
			t.Error(err)
		}
	})
}
