package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// Pending is an instance that waits for its key ceremony: what Prepare was asked for.
func (l Layout) Pending() string { return filepath.Join(l.Dir, "pending.json") }

// Request is what the ceremony is asked for.
func (l Layout) Request() string { return filepath.Join(l.Dir, "request.ceremony") }

// pending is what Prepare keeps for Finish.
type pending struct {
	Config    Config          `json:"config"`
	Product   product.Product `json:"product"`
	Approvers []string        `json:"approvers"`
	Threshold uint            `json:"threshold"`
	Request   []byte          `json:"request_sha256"`
}

// Prepare makes the online half of an instance in a directory that is empty or not there yet: the keys it will run with, and one file
// that asks a key ceremony for the rest. It gives that file's digest, for people to compare. No offline key is ever on this machine.
func Prepare(ctx context.Context, l Layout, o InitOptions, vault func(dir string) (Vault, error)) (digest [32]byte, err error) {
	err = inVacant(l, o, func() error {
		if o.Online, err = vault(l.Keys()); err != nil {
			return err
		}
		m := making{l: l, o: o}
		request, err := m.ask(ctx)
		if err != nil {
			return fmt.Errorf("init: %w", err)
		}
		digest = sha256.Sum256(request)
		data, err := json.MarshalIndent(pending{o.Config, o.Product, o.Approvers, o.Threshold, digest[:]}, "", "  ")
		if err != nil {
			return err
		}
		if err := l.saveOIDCSecret(o.OIDCSecret); err != nil {
			return err
		}
		// The last one says that there is something to go on with.
		return errors.Join(durable.WriteFile(l.Request(), request, 0o644), durable.WriteFile(l.Pending(), append(data, '\n'), 0o600))
	})
	return digest, err
}

// Finish makes the instance that Prepare has begun, with the ceremony's answer. It may be interrupted at any point and called again: what
// a former call has begun is taken away first, for nobody has been told of it. vault opens the keys that Prepare has made.
func Finish(ctx context.Context, l Layout, answer []byte, now time.Time, vault func(dir string) (Vault, error)) (made Made, err error) {
	p, request, err := l.pending()
	if err != nil {
		return Made{}, err
	}
	a, err := wire.DecodeCeremonyAnswer(answer)
	if err != nil {
		return Made{}, fmt.Errorf("this is no answer of a ceremony: %w", err)
	}
	if _, err := ceremony.Check(request, a); err != nil {
		return Made{}, err
	}
	if err := checkHeld(a, p.Config.OEM); err != nil {
		return Made{}, err
	}
	unlock, err := l.Lock()
	if err != nil {
		return Made{}, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := l.clearBegun(); err != nil {
		return Made{}, err
	}
	o := InitOptions{Config: p.Config, Product: p.Product, Approvers: p.Approvers, Threshold: p.Threshold, Now: now}
	if err := o.Check(); err != nil {
		return Made{}, err
	}
	if o.Online, err = vault(l.Keys()); err != nil {
		return Made{}, err
	}
	m := making{l: l, o: o}
	if made, err = m.complete(ctx, request, a); err != nil {
		return Made{}, err
	}
	return made, errors.Join(os.Remove(l.Pending()), os.Remove(l.Request()))
}

// Waiting is the configuration of an instance that waits for its ceremony.
func (l Layout) Waiting() (Config, error) {
	p, _, err := l.pending()
	return p.Config, err
}

// pending reads what Prepare has left.
func (l Layout) pending() (p pending, request []byte, err error) {
	if _, err := os.Stat(l.Config()); err == nil {
		return p, nil, fmt.Errorf("%s holds an instance already: start it with `hallmark serve --dir %s`", l.Dir, l.Dir)
	}
	data, err := os.ReadFile(l.Pending())
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil, fmt.Errorf("nothing waits for a ceremony in %s: `hallmark init --prepare --dir %s` begins one", l.Dir, l.Dir)
	}
	if err != nil {
		return p, nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, nil, fmt.Errorf("%s is damaged: %w; restore it, or remove the directory and prepare anew", l.Pending(), err)
	}
	if request, err = os.ReadFile(l.Request()); err != nil {
		return p, nil, err
	}
	if sum := sha256.Sum256(request); !bytes.Equal(sum[:], p.Request) {
		return p, nil, fmt.Errorf("%s is not the request that was prepared: restore it, or remove the directory and prepare anew", l.Request())
	}
	return p, request, nil
}

// checkHeld holds the transcript in an answer against what else is in it: whoever signs the first trust bundle took part.
func checkHeld(a wire.CeremonyAnswer, oem string) error {
	if len(a.Transcript) == 0 {
		return nil
	}
	t, err := wire.OpenTranscript(a.Transcript)
	if err != nil {
		return err
	}
	if t.Rehearsal {
		return ceremony.ErrRehearsal
	}
	if t.OEM != oem {
		return fmt.Errorf("the transcript is of a ceremony of %s, the instance is %s's", t.OEM, oem)
	}
	return ceremony.MadeAt(t, a)
}

// clearBegun takes away what a Finish that was interrupted has written.
func (l Layout) clearBegun() (err error) {
	for _, path := range []string{
		l.Database(), l.Database() + "-wal", l.Database() + "-shm", l.Logs(), filepath.Join(l.Dir, "witness"), filepath.Dir(l.Cert("x")), l.AdminToken(),
	} {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// held puts the ceremony that the instance is made at on record, if one was held. Whose it was, the people who made the instance know.
func (m *making) held(ctx context.Context, transcript []byte) error {
	if len(transcript) == 0 {
		return nil
	}
	t, err := wire.OpenTranscript(transcript)
	if err != nil {
		return err
	}
	h, f, err := ceremony.Record(t, transcript, nil, "host:init", m.o.Now)
	if err != nil {
		return err
	}
	return m.db.Ceremonies().PutCeremony(ctx, h, f)
}
