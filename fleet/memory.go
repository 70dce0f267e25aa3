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

// patience is how long somebody who looks at a page waits for what was never counted before.
const patience = 100 * time.Millisecond

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

// get gives an answer that is not too old, and waits for it where it must.
func (m *memory[T]) get(ctx context.Context, key string, count func(context.Context) (T, error)) (T, error) {
	r := m.of(key)
	value, age, fresh, slow := r.look()
	switch {
	case fresh:
		return value, nil
	case age < tooOld && slow: // worth not waiting for
		_ = r.begin(ctx, count)
		return value, nil
	}
	r.counting.Lock()
	defer r.counting.Unlock()
	if value, _, fresh, _ := r.look(); fresh {
		return value, nil
	}
	return r.count(ctx, count)
}

// glance gives the last answer there is, however old, and has a newer one counted behind it. Only where there is none it waits, and not for
// long: ok is false when there is none yet.
func (m *memory[T]) glance(ctx context.Context, key string, count func(context.Context) (T, error)) (value T, ok bool, err error) {
	r := m.of(key)
	value, _, fresh, _ := r.look()
	if fresh {
		return value, true, nil
	}
	done := r.begin(ctx, count)
	wait := time.NewTimer(patience)
	defer wait.Stop()
	if done == nil || r.ever() {
		wait.Reset(patience / 10) // somebody waits for it already, or there is something to show
	}
	select {
	case err = <-done:
	case <-wait.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	value, _, _, _ = r.look()
	return value, r.ever(), err
}

func (m *memory[T]) of(key string) *remembered[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[string]*remembered[T]{}
	}
	r := m.known[key]
	if r == nil {
		r = &remembered[T]{}
		m.known[key] = r
	}
	return r
}

// begin counts behind the caller's back, unless somebody does already; what is given ends with it, or never where it is somebody else's.
func (r *remembered[T]) begin(ctx context.Context, count func(context.Context) (T, error)) <-chan error {
	done := make(chan error, 1)
	if !r.counting.TryLock() {
		return nil
	}
	go func() {
		defer r.counting.Unlock()
		_, err := r.count(context.WithoutCancel(ctx), count)
		done <- err
	}()
	return done
}

func (r *remembered[T]) ever() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.at.IsZero()
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
