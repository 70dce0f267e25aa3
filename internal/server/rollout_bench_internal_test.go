package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/bench/crowd"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// plain is a whole instance with very many devices of one product, which run one release, and a newer one.
type plain struct {
	*load
	approvers [2]string
	offline   *soft.Store
	old, new  [32]byte
	devices   int // in the registry, beside those that are played
}

func newPlain(b *testing.B, devices int) *plain {
	b.Helper()
	f := &plain{approvers: [2]string{"approver-a", "approver-b"}, devices: devices}
	f.load = &load{newTheftAfter(b, func(l Layout, _ *soft.Store) {
		var err error
		f.offline, err = soft.Open(l.Offline(), "pass")
		benchMust(b, err)
	}), b}
	f.old = f.publish("1.0.0", 1, [32]byte{1}, 1) // what they are made of was never uploaded: no device fetches it
	f.new = f.publish("1.1.0", 2, [32]byte{2}, 1)
	begun := time.Now()
	benchMust(b, crowd.Uniform(b.Context(), f.inst.db, "pump", f.twin(), devices, time.Now()))
	b.Logf("%d devices after %s", devices, time.Since(begun).Round(time.Millisecond))
	return f
}

// publish puts a release of one program there as its approvers sign it.
func (f *plain) publish(version string, counter uint32, program [32]byte, size uint64) [32]byte {
	f.b.Helper()
	now := time.Now().UTC()
	m := wire.Release{
		ID: "pump-" + version, Product: "pump", Model: wire.ModelBlob, Version: version, Hardware: []string{"A"}, Counter: counter, Created: uint64(now.Unix()),
		Components: []wire.Component{{Name: "app", Kind: "exec", Version: version, Size: size, Digest: program[:], Health: wire.HealthAlive}},
	}
	payload, err := wire.EncodeRelease(m)
	benchMust(f.b, err)
	var envelope []byte
	for i, name := range f.approvers {
		key, err := f.offline.Signer(name)
		benchMust(f.b, err)
		if i == 0 {
			envelope, err = wire.NewThreshold(wire.TypeRelease, payload, key)
		} else {
			envelope, err = wire.AddSignature(wire.TypeRelease, envelope, key)
		}
		benchMust(f.b, err)
	}
	fact := ledger.New(ledger.KindReleasePublished, now, "bench", m.ID, nil, envelope)
	r := release.Release{
		Digest: sha256.Sum256(payload), Manifest: m, Payload: payload, Envelope: envelope, Status: release.Published, Creator: "bench", Created: now, Published: now,
		UID: fact.UID, Rev: 1,
	}
	benchMust(f.b, f.inst.db.Releases().PutRelease(f.b.Context(), r, fact))
	return r.Digest
}

// start begins a rollout of the newer release to all there are, in one wave.
func (f *plain) start(id string) {
	f.b.Helper()
	spec := rollout.Spec{ID: id, Product: "pump", Release: f.new[:], Selection: rollout.Selection{All: true}, Waves: []rollout.Wave{{Deadline: 86400, Soak: 600}}}
	who := access.Internal("bench")
	_, err := f.inst.rollout.Create(f.b.Context(), who, spec)
	benchMust(f.b, err)
	_, _, err = f.inst.rollout.Start(f.b.Context(), who, id)
	benchMust(f.b, err)
}

// told waits until all tranches of the wave are issued.
func (f *plain) told(id string) {
	f.b.Helper()
	for {
		r, err := f.inst.db.Rollouts().Rollout(f.b.Context(), id)
		benchMust(f.b, err)
		n := 0
		for _, t := range r.Waves[0].Tranches {
			if t.Issued {
				n += t.Devices
			}
		}
		if n > 0 && n >= r.Waves[0].Devices {
			return
		}
		select {
		case <-f.b.Context().Done():
			f.b.Fatal(f.b.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ids are some devices of the crowd, spread over all of it.
func (f *plain) ids(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = crowd.ID(i*f.devices/n, f.devices)
	}
	return out
}

// says is what a device of the crowd says, which is what is known of it: it runs the older release and is well.
func (f *plain) says() wire.Checkin {
	in := said()
	in.Token, in.Release = nil, f.old[:]
	return in
}

// twin is what is known of each device of the crowd.
func (f *plain) twin() device.Twin {
	in := f.says()
	return device.Twin{
		Release: in.Release, Version: in.Version, Good: in.Release, Agent: in.State, Healthy: in.Healthy, Health: in.Health, Told: "healthy", Bundle: in.Bundle,
		BootCount: in.BootCount, Reported: in.Reported,
	}
}

func (f *plain) asks(b *testing.B) []byte {
	b.Helper()
	in := f.says()
	body, err := wire.EncodeCheckin(in)
	benchMust(b, err)
	return body
}

// served has each of the devices told once, some at a time, and gives how long that took; whoever cannot be told yet asks again.
func (f *plain) served(b *testing.B, ids []string, n int) {
	b.Helper()
	body := f.asks(b)
	at := bytes.Index(body, make([]byte, 32))
	var next, again atomic.Uint64
	var all sync.WaitGroup
	for range pollers {
		all.Go(func() {
			mine := bytes.Clone(body)
			for i := next.Add(1); i <= uint64(n) && !b.Failed(); i = next.Add(1) {
				id := ids[int(i)%len(ids)]
				for try := uint64(0); ; try++ { // it can be told when what it is told is under a checkpoint
					binary.BigEndian.PutUint64(mine[at:], i)
					binary.BigEndian.PutUint64(mine[at+8:], try)
					out, err := f.inst.device.Call(b.Context(), access.DeviceCaller(id), id, mine)
					if err != nil {
						b.Errorf("device %s: %v", id, err)
						return
					}
					r, err := wire.DecodeCheckinReply(out)
					if err == nil && len(r.Delivery) > 0 {
						break
					}
					again.Add(1)
					if err != nil || r.Standing != string(device.Active) || b.Context().Err() != nil {
						b.Errorf("device %s: %+v %v", id, r, err)
						return
					}
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(again.Load())/float64(n), "again/op")
}

// wave is the first wave of the benchmarks.
const wave = 100_000

// BenchmarkDirective is one directive that a device is given when it asks: its counter made durable, signed, with the proofs of command and release, and with
// its place among 100,000. Service is that of the stage and all below it, each time for another device. Line is what it costs over mTLS behind the
// devices' own listener, with HTTP and the devices that are played, which are few.
func BenchmarkDirective(b *testing.B) {
	f := newPlain(b, wave)
	played := f.atWork(pollers)
	f.start("one")
	f.told("one")
	f.served(b, f.ids(pollers), pollers) // until it can be proven
	b.Run("service", func(b *testing.B) {
		ids := f.ids(wave)
		begun := processorTime(b)
		b.ResetTimer()
		f.served(b, ids, b.N)
		b.StopTimer()
		b.ReportMetric(float64((processorTime(b)-begun).Nanoseconds())/1e6/float64(b.N), "cpu-ms/op")
	})
	b.Run("line", func(b *testing.B) { pollMany(b, f.load, played, strings.TrimPrefix(f.url, "https://")) })
}

// BenchmarkFirstWave is what passes from the start of a rollout to 100,000 devices until all of them are told, and the first 1,000 that ask have their
// directive.
func BenchmarkFirstWave(b *testing.B) {
	f := newPlain(b, wave)
	begun := processorTime(b)
	b.ResetTimer()
	for i := range b.N {
		id := fmt.Sprintf("wave-%d", i)
		f.start(id)
		f.told(id)
		b.ReportMetric(b.Elapsed().Seconds()/float64(i+1), "told-s/100k")
		f.served(b, f.ids(1000), 1000)
		b.StopTimer()
		_, err := f.inst.rollout.Abort(b.Context(), access.Internal("bench"), id, "measured")
		benchMust(b, err)
		b.StartTimer()
	}
	b.StopTimer()
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/100k")
	b.ReportMetric((processorTime(b)-begun).Seconds()/float64(b.N), "cpu-s/100k")
}

// BenchmarkPlan is what a start, and a dry run before it, take to select a million devices and put them into waves.
func BenchmarkPlan(b *testing.B) {
	f := newPlain(b, 1_000_000)
	spec := rollout.Spec{
		ID: "plan", Product: "pump", Release: f.new[:], Selection: rollout.Selection{All: true},
		Waves: []rollout.Wave{{Size: 1000, Deadline: 86400}, {Percent: 10, Deadline: 86400}, {Deadline: 86400}},
	}
	b.Run("dry", func(b *testing.B) {
		begun := processorTime(b)
		for b.Loop() {
			res, err := f.inst.rollout.DryRun(b.Context(), access.Internal("bench"), spec)
			benchMust(b, err)
			if res.Reached < f.devices { // beside the crowd there is the one device that the instance begins with
				b.Fatalf("%d devices of %d", res.Reached, f.devices)
			}
		}
		b.ReportMetric((processorTime(b)-begun).Seconds()/float64(b.N), "cpu-s/op")
	})
	b.Run("start", func(b *testing.B) {
		for i := range b.N {
			spec.ID = fmt.Sprintf("plan-%d-%d", b.N, i)
			b.StopTimer()
			_, err := f.inst.rollout.Create(b.Context(), access.Internal("bench"), spec)
			benchMust(b, err)
			b.StartTimer()
			_, _, err = f.inst.rollout.Start(b.Context(), access.Internal("bench"), spec.ID)
			benchMust(b, err)
			b.StopTimer()
			_, err = f.inst.rollout.Abort(b.Context(), access.Internal("bench"), spec.ID, "measured")
			benchMust(b, err)
			b.StartTimer()
		}
	})
}
