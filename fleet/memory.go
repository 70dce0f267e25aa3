package fleet

import (
	"context"
	"sync"
	"time"
)

// An answer is good for costFactor times what it cost to find, so that counting never takes more than a small part of the
// machine, and a small fleet's numbers are always fresh. One older than that is still shown, while it is counted anew, for at
// most tooOld: what is shown says when it is from.
const (
	costFactor = 20
	tooOld     = 2 * time.Minute
)

// memory remembers counts. Its zero value is ready.
type memory[T any] struct {
	mu    sync.Mutex
	known map[string]*remembered[T] // guarded by mu
}

type remembered[T any] struct {
	counting sync.Mutex // held by who counts

	mu    sync.Mutex
	value T
	at    time.Time     // guarded by mu, as all but counting; zero: never counted
	good  time.Duration // how long from at
}

func (m *memory[T]) get(ctx context.Context, key string, count func(context.Context) (T, error)) (T, error) {
	m.mu.Lock()
	if m.known == nil {
		m.known = map[string]*remembered[T]{}
	}
	r := m.known[key]
	if r == nil {
		r = &remembered[T]{}
		m.known[key] = r
	}
	m.mu.Unlock()
	value, age, fresh, slow := r.look()
	switch {
	case fresh:
		return value, nil
	case age < tooOld && slow: // worth not waiting for
		if r.counting.TryLock() {
			go func() {
				defer r.counting.Unlock()
				_, _ = r.count(context.WithoutCancel(ctx), count) // who comes next meets the error, when it is too old
			}()
		}
		return value, nil
	}
	r.counting.Lock()
	defer r.counting.Unlock()
	if value, _, fresh, _ := r.look(); fresh {
		return value, nil
	}
	return r.count(ctx, count)
}

func (r *remembered[T]) look() (value T, age time.Duration, fresh, slow bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	age = time.Since(r.at)
	return r.value, age, age < r.good, r.good > time.Second
}

func (r *remembered[T]) count(ctx context.Context, count func(context.Context) (T, error)) (T, error) {
	start := time.Now()
	value, err := count(ctx)
	if err != nil {
		return value, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.at, r.good = value, time.Now(), costFactor*time.Since(start)
	return value, nil
}
