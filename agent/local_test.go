package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/machine"
	"github.com/hallmark-iot/hallmark/wire"
)

// ask says one line to the device's local socket.
func (d *device) ask(t *testing.T, line string) (r agent.LocalReply) {
	t.Helper()
	conn := d.local.dial()
	defer conn.Close()
	go func() { _, _ = io.WriteString(conn, line+"\n") }() // the device may stop listening in the middle
	answer, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		t.Fatalf("%.60s: no answer: %v", line, err)
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheLocalSocketSaysWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		stop := d.start(t)
		for line, says := range map[string]string{
			`{`:                               "not a request: unexpected EOF",
			``:                                "not a request: EOF",
			`status`:                          "not a request: invalid character",
			`{"op":7}`:                        "not a request: json: cannot unmarshal number",
			`{"op":"deliver","delivery":"#"}`: "not a request: illegal base64",
			`{"op":"status","as":"root"}`:     `not a request: json: unknown field "as"`,
			`{"op":"status"} {"op":"nonce"}`:  "not a request: more than one on a line",
			`{"op":"unlock"}`:                 `unknown op "unlock": status, params, nonce, deliver, consent, carton, history or prove`,
			`{}`:                              `unknown op ""`,
			strings.Repeat("x", 1<<20):        "not a request: a line of more than",
		} {
			if r := d.ask(t, line); !strings.HasPrefix(r.Error, says) || r.Status != nil || r.Outcome != "" {
				t.Errorf("%.60s: %+v, want %q", line, r, says)
			}
		}
		if r := d.ask(t, `{"op":"status"}`); r.Error != "" || r.Status == nil || r.Status.Device != me || r.Status.Version != "1.0.0" {
			t.Errorf("and then the status: %+v", r)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A watchdog is kicked by whoever has an answer of the loop: none comes before it runs, nor after.
func TestAnAgentIsAliveWhenItsLoopAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.board.Reset()
		a, err := d.join(must(machine.Start(&d.board.Board, [32]byte{9})))
		if err != nil {
			t.Fatal(err)
		}
		alive := func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return a.Alive(ctx)
		}
		if alive() {
			t.Error("it is alive before it runs")
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx) }()
		if !alive() {
			t.Error("it runs and is not alive")
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if alive() {
			t.Error("it is alive after its end")
		}
	})
}

// Who stands beside the device is judged as the server is: the nonce is needed, and serves once.
func TestADeliveryByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.s.down.Store(true)
		stop := d.start(t)
		c := w.command(wire.ActQuarantine, nil)
		deliver := func(delivery []byte) agent.LocalReply {
			return d.ask(t, string(must(json.Marshal(agent.LocalRequest{Op: "deliver", Delivery: delivery}))))
		}
		if r := deliver(w.deliver(c, make([]byte, 32), 1)); r.Outcome != wire.OutcomeRefused || r.Code != "nonce" {
			t.Errorf("without a nonce: %+v", r)
		}
		if r := deliver([]byte("junk")); r.Outcome != wire.OutcomeRefused || r.Code != "malformed" {
			t.Errorf("no delivery: %+v", r)
		}
		nonce := d.ask(t, `{"op":"nonce"}`).Nonce
		good := w.deliver(c, nonce, 1)
		if r := deliver(good); r.Outcome != wire.OutcomeDone || r.Act != wire.ActQuarantine || !d.prog.isolated.Load() {
			t.Errorf("a good one: %+v", r)
		}
		if r := deliver(good); r.Outcome != wire.OutcomeRefused || r.Code != "nonce" {
			t.Errorf("the same again: %+v", r)
		}
		if r := d.ask(t, `{"op":"status"}`); r.Status == nil || r.Status.State != "quarantined" || r.Status.Counter != 1 {
			t.Errorf("%+v", r.Status)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A question that meets a restart is answered or cut off; nobody waits for a device that is gone.
func TestALocalQuestionDoesNotOutliveTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.s.down.Store(true)
		ended := make(chan error, 1)
		go func() { ended <- d.power(t.Context()) }()
		silent, eager := d.local.dial(), d.local.dial()
		nonce := d.ask(t, `{"op":"nonce"}`).Nonce
		r := d.ask(t, string(must(json.Marshal(agent.LocalRequest{Op: "deliver", Delivery: w.deliver(w.command(wire.ActReset, nil), nonce, 1)}))))
		if r.Outcome != wire.OutcomeDone || r.Act != wire.ActReset {
			t.Errorf("reset: %+v", r)
		}
		if err := <-ended; !errors.Is(err, agent.ErrReset) {
			t.Errorf("the run ended with %v", err)
		}
		_ = eager.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(eager, `{"op":"status"}`+"\n") // may find nobody
		for name, conn := range map[string]io.Reader{"silent": silent, "eager": eager} {
			if n, err := conn.Read(make([]byte, 100)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("%s: %d bytes, %v", name, n, err)
			}
		}
	})
}
