package gate_test

import (
	"testing"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// BenchmarkJudge is all a device does between what it got and what it does: a command with its proof; an install with its release besides.
func BenchmarkJudge(b *testing.B) {
	for _, act := range []wire.Act{wire.ActQuarantine, wire.ActInstall} {
		b.Run(string(act), func(b *testing.B) {
			w := newWorld(b)
			s, o := valid(w, act)
			raw := must(wire.EncodeDelivery(w.deliver(o)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := gate.Judge(s, raw, nonce(), now); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(raw)), "wire-B")
		})
	}
}
