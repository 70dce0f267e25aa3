package machine

import (
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// A protected program lies sealed in flash, and there is no other form of it on the device but the memory that is executed. Its key comes from the
// server, in the answer to evidence of this start, and is kept in memory for as long as this start lasts: so a device that is retired, stolen or not what
// it was runs nothing of it after its next start.

// errLocked says that a protected program has no key yet.
var errLocked = errors.New("it is protected, and its key has not come in this start")

// readable gives the bytes that are executed.
func (m *Machine) readable(code io.Reader, c wire.Component) (io.Reader, error) {
	if c.Protected == nil {
		return code, nil
	}
	key, ok := m.codeKeys[[wire.ContentKeyID]byte(c.Protected.Key)]
	if !ok {
		return nil, errLocked
	}
	return wire.OpenComponent(code, key, c)
}

// Locked implements agent.Keyed.
func (m *Machine) Locked() bool { return m.programs != nil && m.programs.locked() }

// CodeKey implements agent.Keyed.
func (m *Machine) CodeKey() ([]byte, error) {
	e, err := m.board.Keys.Exchanger()
	if err != nil {
		return nil, fmt.Errorf("%s key: %w", hw.KeyCode, err)
	}
	return e.PublicKey().Bytes(), nil
}

// Unlock implements agent.Keyed.
func (m *Machine) Unlock(wraps []wire.Wrap, nonce []byte) error {
	e, err := m.board.Keys.Exchanger()
	if err != nil {
		return fmt.Errorf("%s key: %w", hw.KeyCode, err)
	}
	if m.programs != nil {
		m.programs.mu.Lock()
		defer m.programs.mu.Unlock()
	}
	var faults []error
	for _, w := range wraps {
		key, err := w.Open(e, m.boot.Report().Identity.Device, nonce)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if m.codeKeys == nil {
			m.codeKeys = map[[wire.ContentKeyID]byte][]byte{}
		}
		m.codeKeys[[wire.ContentKeyID]byte(w.Key)] = key
	}
	if m.programs != nil {
		m.programs.unlock()
	}
	return errors.Join(faults...)
}

func (p *Programs) locked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.list {
		if x.proc == nil && errors.Is(x.fault, errLocked) {
			return true
		}
	}
	return false
}

// unlock starts what waited for a key, unless nothing is to be started now. p.mu is held.
func (p *Programs) unlock() {
	if p.quiet {
		return
	}
	for _, x := range p.list {
		if errors.Is(x.fault, errLocked) {
			x.fault = nil
		}
	}
	_ = p.begin() // what does not start says so by its fault
}
