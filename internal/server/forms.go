package server

import (
	"context"
	"time"
)

// deltasEvery is how often it is looked for deltas to make.
const deltasEvery = 2 * time.Second

// makeDeltas makes deltas on one node, one after another, and rests as long as each took. It is no loop whose standing still is a fault: one delta may take a minute, and no device waits for it.
func (i *Instance) makeDeltas(ctx context.Context) error {
	wait := deltasEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		begun := time.Now()
		wait = deltasEvery
		err := i.alone("deltas", func(ctx context.Context) error {
			made, err := i.release.MakeDelta(ctx)
			if made {
				wait = max(time.Since(begun), 10*time.Millisecond)
			}
			return err
		})(ctx)
		if err != nil && ctx.Err() == nil {
			i.log.ErrorContext(ctx, "deltas wait", "error", err)
		}
	}
}
