package agent

import (
	"bytes"
	"io"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// The rolling token shows the server that this device is the one that was there last: see wire.Token. A pair lasts as long as the server
// says, and is replaced once in each run besides, so that a copy, which has to be started, cannot but roll. A pair that the server has not
// acknowledged is never replaced: it may be the one that counts there.

// leastRoll bounds how often a server may have the token roll: each time is a write to flash.
const leastRoll = time.Minute

// token gives the pair to send. The first of a memory is made here, and durable before it is given.
func (a *Agent) token() (*wire.Token, error) {
	if a.m.Token == nil && !a.silent() {
		if err := a.roll(); err != nil {
			return nil, local(err)
		}
	}
	return a.m.Token, nil
}

// tokenAcked takes what the server says about the token, and makes the next pair when one is due.
func (a *Agent) tokenAcked(reply wire.CheckinReply) error {
	if a.m.Token == nil || !bytes.Equal(reply.Token, a.m.Token.Next) || a.silent() {
		return nil
	}
	lasts := max(time.Duration(min(reply.Roll, 1<<31))*time.Second, leastRoll)
	if now := time.Now(); a.rolled.IsZero() || now.Sub(a.rolled) >= lasts {
		a.rolled = now
		return local(a.roll())
	}
	return nil
}

func (a *Agent) roll() error {
	next := &wire.Token{Next: make([]byte, wire.TokenSize)}
	if a.m.Token != nil {
		next.Last = a.m.Token.Next
	}
	if _, err := io.ReadFull(a.random(), next.Next); err != nil {
		return err
	}
	m := a.m
	m.Token = next
	return a.save(m)
}
