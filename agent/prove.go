package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// Whoever stands beside a device may ask it to prove that it is the one it says: with its factory identity over his nonce, with what it runs.
// Nothing of it is secret; it costs two signatures, so that it is rationed.
const (
	proveEvery = 2 * time.Second  // at most one proof in so long, whoever asks
	proveIdle  = 10 * time.Second // how long a stranger may take to ask
	maxProvers = 4                // strangers at once
	maxProve   = 512              // bytes of a stranger's question
)

// prove answers a challenge, in the loop.
func (a *Agent) prove(challenge []byte) (LocalReply, error) {
	if n := len(challenge); n < wire.MinAskerNonce || n > wire.MaxAskerNonce {
		return LocalReply{Error: fmt.Sprintf("a challenge of %d bytes: want %d to %d", n, wire.MinAskerNonce, wire.MaxAskerNonce)}, nil
	}
	now := time.Now()
	if !a.proved.IsZero() && now.Sub(a.proved) < proveEvery {
		return LocalReply{Error: "it was asked just now: ask again in some seconds"}, nil
	}
	if a.silent() {
		return LocalReply{Error: "its life is ending: it has nothing to prove with"}, nil
	}
	a.proved = now
	proof, err := a.proof(challenge)
	if err != nil {
		a.log.Warn("no proof", "error", err)
		return LocalReply{Error: "it cannot prove itself"}, nil
	}
	return LocalReply{Proof: proof}, nil
}

func (a *Agent) proof(challenge []byte) ([]byte, error) {
	nonce := wire.GenuineNonce(challenge)
	evidence, err := a.evidence(nonce[:], nil)
	if err != nil {
		return nil, err
	}
	attest, err := a.attestKey()
	if err != nil {
		return nil, err
	}
	spki, err := wire.SPKIOf(attest.Public())
	if err != nil {
		return nil, err
	}
	id, err := a.c.Keys.Signer(hw.KeyIDevID)
	if err != nil {
		return nil, err
	}
	body, err := wire.EncodeDeviceProof(wire.DeviceProof{V: 1, Device: a.c.Machine.Facts().Device, Nonce: challenge, Attest: spki, Evidence: evidence})
	if err != nil {
		return nil, err
	}
	chain, err := a.rooted()
	if err != nil {
		return nil, err
	}
	return wire.SignChained(wire.TypeDeviceProof, body, id, chain)
}

// rooted is the chain of the factory identity with the root that signed it, which is one of the trust bundle's anchors.
func (a *Agent) rooted() ([][]byte, error) {
	return wire.Rooted(a.c.IDevID, a.c.Machine.Facts().Bundle.Anchors)
}

// Prove answers a challenge of a stranger; ok is false when the loop does not answer any more.
func (a *Agent) Prove(ctx context.Context, challenge []byte) (reply LocalReply, ok bool) {
	return a.put(ctx, LocalRequest{Op: "prove", Challenge: challenge})
}

// ServeProof answers strangers on l until it is closed: a challenge each, which prove answers, and nothing else. It needs nothing of the device's, so
// that it runs where the network's code does.
func ServeProof(ctx context.Context, l net.Listener, prove func(ctx context.Context, challenge []byte) (LocalReply, bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	places := make(chan struct{}, maxProvers)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listener for proofs: %w", err)
		}
		select {
		case places <- struct{}{}:
			conns.Go(func() {
				defer func() { <-places }()
				serveProof(ctx, conn, prove)
			})
		default:
			conn.Close() // they ask again
		}
	}
}

// serveProof answers one question of a stranger.
func serveProof(ctx context.Context, conn net.Conn, prove func(ctx context.Context, challenge []byte) (LocalReply, bool)) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	if conn.SetDeadline(time.Now().Add(proveIdle)) != nil || ctx.Err() != nil {
		return
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, maxProve), maxProve)
	if !lines.Scan() {
		return
	}
	reply := LocalReply{Error: "here a device proves itself: {\"op\":\"prove\",\"challenge\":…}"}
	if req, err := parseLocal(lines.Bytes()); err == nil && req.Op == "prove" {
		var ok bool
		if reply, ok = prove(ctx, req.Challenge); !ok {
			return
		}
	}
	_ = conn.SetDeadline(time.Now().Add(answerTime))
	_ = json.NewEncoder(conn).Encode(reply) // who asked has gone
}
