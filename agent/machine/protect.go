package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// A protected program lies sealed in flash, and there is no other form of it on the device but the memory that is executed. Its key comes from the
// server, in the answer to evidence of this start, and is kept in memory for as long as this start lasts: so a device that is retired, stolen or not what
// it was runs nothing of it after its next start.
//
// A protected image comes sealed, too, and is opened on its way to the machine's installer. What lies in a bank then is what the machine starts from, and is
// not sealed.

// errLocked says that a protected program has no key yet.
var errLocked = errors.New("it is protected, and its key has not come in this start")

// codeKeys are those of protected components, of this start. Programs ask for theirs; who brings an image waits for its own, beside all else.
type codeKeys struct {
	mu      sync.Mutex
	have    map[[wire.ContentKeyID]byte][]byte
	waiting int           // for a key of an image
	came    chan struct{} // closed when keys do; nil: nobody waits
}

func (k *codeKeys) get(id []byte) ([]byte, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.have[[wire.ContentKeyID]byte(id)]
	return key, ok
}

// await is get, when it is there.
func (k *codeKeys) await(ctx context.Context, id []byte) ([]byte, error) {
	k.mu.Lock()
	k.waiting++
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		k.waiting--
		k.mu.Unlock()
	}()
	for {
		k.mu.Lock()
		key, ok := k.have[[wire.ContentKeyID]byte(id)]
		if k.came == nil {
			k.came = make(chan struct{})
		}
		came := k.came
		k.mu.Unlock()
		if ok {
			return key, nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return nil, fmt.Errorf("it is protected, and its key did not come: %w", ctx.Err())
		}
	}
}

func (k *codeKeys) awaited() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.waiting > 0
}

func (k *codeKeys) put(keys map[[wire.ContentKeyID]byte][]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.have == nil {
		k.have = map[[wire.ContentKeyID]byte][]byte{}
	}
	maps.Copy(k.have, keys)
	if k.came != nil {
		close(k.came)
		k.came = nil
	}
}

func (k *codeKeys) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.have = nil
}

// readable gives the bytes that are executed.
func (m *Machine) readable(code io.Reader, c wire.Component) (io.Reader, error) {
	if c.Protected == nil {
		return code, nil
	}
	key, ok := m.codeKeys.get(c.Protected.Key)
	if !ok {
		return nil, errLocked
	}
	return wire.OpenComponent(code, key, c)
}

// image opens a protected image for the installer, when its key is there: who brings it does so beside the loop that asks for keys.
func (m *Machine) image(ctx context.Context, sealed io.Reader, c wire.Component) (io.Reader, error) {
	key, err := m.codeKeys.await(ctx, c.Protected.Key)
	if err != nil {
		return nil, err
	}
	return wire.OpenComponent(sealed, key, c)
}

// Locked implements agent.Keyed.
func (m *Machine) Locked() bool {
	return m.programs != nil && m.programs.locked() || m.codeKeys.awaited()
}

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
	keys := map[[wire.ContentKeyID]byte][]byte{}
	for _, w := range wraps {
		key, err := w.Open(e, m.boot.Report().Identity.Device, nonce)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		keys[[wire.ContentKeyID]byte(w.Key)] = key
	}
	m.codeKeys.put(keys)
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
