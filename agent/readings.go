package agent

import (
	"context"
	"time"

	"github.com/hallmark-iot/hallmark/agent/link"
)

// sample takes a reading when one is due, whether or not the server can be reached. None is taken in a guarded state, nor before the server has said
// in this run whose time it is: it would be sealed for another owner.
func (a *Agent) sample(ctx context.Context) error {
	if a.c.Telemetry == nil || a.m.Guard != nil || a.period == nil || a.silent() || time.Now().Before(a.sampleAt) {
		return nil
	}
	a.sampleAt = time.Now().Add(a.c.Sampling)
	key, err := a.attestKey()
	if err != nil {
		return local(err)
	}
	if err := a.c.Telemetry.Sample(ctx, a.now(), key, *a.period); err != nil {
		a.log.Warn("telemetry", "error", err)
	}
	return nil
}

// tellReadings takes a reading when one is due, and uploads some of what waits.
func (a *Agent) tellReadings(ctx context.Context) error {
	if err := a.sample(ctx); err != nil {
		return err
	}
	_, err := a.sendTelemetry(ctx)
	return err
}

// sendTelemetry uploads what waits, as much as one upload carries; false when nothing was taken.
func (a *Agent) sendTelemetry(ctx context.Context) (bool, error) {
	if a.c.Telemetry == nil || a.m.Guard != nil || a.now().Before(a.sealedAt) {
		return false, nil
	}
	key, err := a.attestKey()
	if err != nil {
		return false, local(err)
	}
	upload, answered, err := a.c.Telemetry.Next(a.now(), key)
	if err != nil || upload == nil {
		if err != nil {
			a.log.Warn("telemetry", "error", err)
		}
		return false, nil
	}
	err = a.server.Telemetry(ctx, upload)
	if link.Final(err) { // data that the server will not have must not keep the device from being commanded
		a.log.Warn("telemetry refused: it is sealed anew", "error", err)
		answered(false)
		return false, nil
	}
	if after, later := link.Later(err); later { // it is kept; nothing else waits for it
		a.sealedAt = a.now().Add(min(max(after, time.Minute), 24*time.Hour))
		a.log.Warn("telemetry waits", "error", err, "until", a.sealedAt)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	answered(true)
	return true, nil
}

// mostEnding is how long a restart waits for readings to be told. What is not told by then is gone: they are nowhere but in memory.
const mostEnding = 10 * time.Second

// endTelemetry tells what waits before the device restarts, and that it is all. The restart follows whatever the server says.
func (a *Agent) endTelemetry(ctx context.Context) {
	if a.c.Telemetry == nil || a.server == nil || a.silent() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, mostEnding)
	defer cancel()
	a.c.Telemetry.End()
	for {
		more, err := a.sendTelemetry(ctx)
		if err != nil {
			a.log.Warn("readings are lost in the restart", "error", err)
		}
		if !more {
			return
		}
	}
}
