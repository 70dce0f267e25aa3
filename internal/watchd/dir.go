// Package watchd keeps what a watcher of the logs must not lose, and passes its alerts on.
//
// Over all stages, an adapter between ledger/watch, a directory and a receiver of webhooks. An alert is on the disk before the follower
// goes on, and stays there until the receiver has taken it: it arrives at least once, in order, under an ID that does not change. It
// trusts its own directory and the receiver that the address names.
package watchd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger/watch"
)

// Dir is the directory of a watcher: state.json, memory.json, evidence/ with the checkpoints of logs that contradicted themselves, and
// outbox/ with alerts that were not delivered yet.
type Dir struct{ Path string }

func (d Dir) state() string  { return filepath.Join(d.Path, "state.json") }
func (d Dir) memory() string { return filepath.Join(d.Path, "memory.json") }

// Load reads where the last run came to. A state that is damaged is refused: without it a fork could not be seen. A memory that cannot
// be used is left, because the logs hold it all.
func (d Dir) Load(p watch.Policy) (watch.State, *watch.Memory, error) {
	var s watch.State
	data, err := os.ReadFile(d.state())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil, nil
	}
	if err != nil {
		return s, nil, err
	}
	j := json.NewDecoder(bytes.NewReader(data))
	j.DisallowUnknownFields()
	if err := j.Decode(&s); err != nil {
		return s, nil, fmt.Errorf("%s: %w; restore it, or begin in another directory with the checkpoints you know", d.state(), err)
	}
	data, err = os.ReadFile(d.memory())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil, nil
	}
	if err != nil {
		return s, nil, err
	}
	m, err := watch.DecodeMemory(data, p)
	if err != nil {
		return s, nil, nil //nolint:nilerr // of another version or policy: the logs are read anew
	}
	for log, judged := range m.Judged {
		if judged > s.Logs[log].Told {
			return s, nil, nil // what is between would not be told
		}
	}
	return s, m, nil
}

// Save implements watch.Sink.
func (d Dir) Save(_ context.Context, s watch.State) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(d.state()); err == nil && bytes.Equal(have, append(data, '\n')) {
		return nil
	}
	return durable.WriteFile(d.state(), append(data, '\n'), 0o600)
}

// Remember implements watch.Sink.
func (d Dir) Remember(_ context.Context, m *watch.Memory) error {
	data, err := m.Encode()
	if err != nil {
		return err
	}
	return durable.WriteFile(d.memory(), data, 0o600)
}

// keepEvidence writes down the checkpoints of a notice.
func (d Dir) keepEvidence(n watch.Notice) error {
	if n.Shown == "" {
		return nil
	}
	dir := filepath.Join(d.Path, "evidence", n.Alert.ID)
	return errors.Join(durable.WriteFile(filepath.Join(dir, "kept"), []byte(n.Kept), 0o600),
		durable.WriteFile(filepath.Join(dir, "shown"), []byte(n.Shown), 0o600))
}

// Sink tells alerts: to people by Print, to the receiver by Outbox.
type Sink struct {
	Dir    *Dir    // nil: nothing is kept
	Outbox *Outbox // nil: nobody else is told
	Print  func(watch.Alert) error
}

// Tell implements watch.Sink.
func (s Sink) Tell(_ context.Context, n watch.Notice) error {
	if s.Dir != nil {
		if err := s.Dir.keepEvidence(n); err != nil {
			return err
		}
	}
	if s.Outbox != nil {
		if err := s.Outbox.Put(n); err != nil {
			return err
		}
	}
	return s.Print(n.Alert)
}

// Save implements watch.Sink.
func (s Sink) Save(ctx context.Context, st watch.State) error {
	if s.Dir == nil {
		return nil
	}
	return s.Dir.Save(ctx, st)
}

// Remember implements watch.Sink.
func (s Sink) Remember(ctx context.Context, m *watch.Memory) error {
	if s.Dir == nil {
		return nil
	}
	return s.Dir.Remember(ctx, m)
}
