package agent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/wire"
)

// A program that keeps more than its release grants it is stopped, with the reason, whether it is one file or many; the others go on.
func TestAProgramThatKeepsTooMuchIsStopped(t *testing.T) {
	w := newWorld()
	f := w.set("1.0.0", 1, func(c *wire.Component) { c.Capabilities.Disk = 1 << 20 },
		part{"many", wire.KindExec, "#!/bin/sh\nfor i in 1 2 3 4 5 6; do head -c 200000 /dev/zero >file$i; done\nexec sleep 600\n", nil, nil},
		part{"one", wire.KindExec, "#!/bin/sh\ntrap '' XFSZ\nhead -c 2000000 /dev/zero >file 2>/dev/null || echo one is held at $(wc -c <file)\nexec sleep 600\n", nil, nil},
		part{"some", wire.KindExec, "#!/bin/sh\nhead -c 200000 /dev/zero >file\necho some is done\nexec sleep 600\n", nil, nil})
	_, p, out := launched(t, w, f)
	for _, want := range []string{"one is held at 1048576\n", "some is done\n"} { // the third may be stopped before it says anything
		out.await(t, want)
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		h, text := p.Health()
		if h == agent.HealthSick && strings.Contains(text, "many is stopped: it keeps more than it may: 12") {
			if !strings.HasSuffix(text, "; runs; runs") {
				t.Errorf("others are stopped too: %s", text)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it goes on: %v, %s", h, text)
		}
	}
}
