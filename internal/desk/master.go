package desk

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hpke"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/wire"
)

const masters = "masters" // PRODUCT.json: the newest master of each hardware revision of which an order was wrapped

// secrets are where a desk's keys are that are none of a signer's: among its files, or sealed by its token.
type secrets interface {
	Names() ([]string, error)
	Secret(name string) ([]byte, error)
	PutSecret(name string, secret []byte) error
}

// sealer is a token. It has no keys of that kind, and seals them for a file.
type sealer interface {
	Seal(name string, plain []byte) ([]byte, error)
	Unseal(name string, sealed []byte) ([]byte, error)
}

const sealedKeys = "sealed" // NAME: a key that the token has sealed

// byToken are secrets in files that only the token opens. One that is open is in this process's memory, as those in files are.
type byToken struct {
	d     *Desk
	token sealer
}

// Names implements secrets.
func (b byToken) Names() (names []string, err error) {
	list, err := os.ReadDir(b.d.path(sealedKeys))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names, err
}

// Secret implements secrets.
func (b byToken) Secret(name string) ([]byte, error) {
	sealed, err := b.d.read(sealedKeys, name)
	if err != nil {
		return nil, err
	}
	return b.token.Unseal(name, sealed)
}

// PutSecret implements secrets.
func (b byToken) PutSecret(name string, secret []byte) error {
	sealed, err := b.token.Seal(name, secret)
	if err != nil {
		return err
	}
	failpoint.Hit("desk.sealed")
	return b.d.write("desk.master-key", sealed, 0o600, sealedKeys, name)
}

func (d *Desk) masterKey() string { return d.Name + "-master" }

func (d *Desk) secrets(keys Keys) (secrets, error) {
	switch k := keys.(type) {
	case secrets:
		return k, nil
	case sealer:
		return byToken{d, k}, nil
	}
	return nil, conflict("desk.master-key", "this desk's keys are where no key for masters can be", "give the release and its files to `hallmark order wrap`")
}

// MasterFile is what masters are sealed to for this desk; its key is made when it is first asked for. It has the form of an instance's file for its desks.
func (d *Desk) MasterFile(keys Keys) (factory.DeskFile, error) {
	k, err := d.secrets(keys)
	if err != nil {
		return factory.DeskFile{}, err
	}
	f := factory.DeskFile{OEM: d.Of.OEM, Instance: "desk " + d.Name, Root: d.Of.Root}
	secret, err := d.masterSecret(k)
	if errors.Is(err, factory.ErrNotFound) {
		secret, err = d.newMasterSecret(k)
	}
	if err != nil {
		return f, err
	}
	defer clear(secret)
	f.SealKey, err = publicOf(secret)
	return f, err
}

// masterSecret is the desk's private key for masters; factory.ErrNotFound when there is none yet.
func (d *Desk) masterSecret(k secrets) ([]byte, error) {
	names, err := k.Names()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, d.masterKey()) {
		return nil, factory.ErrNotFound
	}
	return k.Secret(d.masterKey())
}

func (d *Desk) newMasterSecret(k secrets) ([]byte, error) {
	fresh, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		return nil, err
	}
	secret, err := fresh.Bytes()
	if err != nil {
		return nil, err
	}
	return secret, k.PutSecret(d.masterKey(), secret)
}

func publicOf(secret []byte) ([]byte, error) {
	key, err := hpke.MLKEM768P256().NewPrivateKey(secret)
	if err != nil {
		return nil, fmt.Errorf("the desk's key for masters: %w", err)
	}
	return key.PublicKey().Bytes(), nil
}

// unsealer opens what is sealed to this desk.
func (d *Desk) unsealer(k secrets) factory.Unsealer {
	return func(id []byte) ([]byte, error) {
		secret, err := d.masterSecret(k)
		if err != nil {
			return nil, err
		}
		public, err := publicOf(secret)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(wire.SealKeyID(public), id) {
			return nil, factory.ErrNotFound
		}
		return secret, nil
	}
}

// WrapMaster is Wrap of what a master says: its trust bundle, which must be the one that is pinned, its release, its parameters and its bytes.
func (d *Desk) WrapMaster(ctx context.Context, keys Keys, spec factory.OrderSpec, file *os.File, out string, now time.Time) (Wrapped, error) {
	p, err := d.ready(spec.Product, now)
	if err != nil {
		return Wrapped{}, err
	}
	k, err := d.secrets(keys)
	if err != nil {
		return Wrapped{}, err
	}
	head, _, err := factory.CheckMaster(bufio.NewReader(file))
	if err != nil {
		return Wrapped{}, err
	}
	m, err := factory.OpenMaster(d.Of.OEM, p.envelope, head, d.unsealer(k))
	if err != nil {
		return Wrapped{}, err
	}
	if spec, err = m.Spec(spec); err != nil {
		return Wrapped{}, err
	}
	spec.Payload = m.Source(file)
	if err := d.newest(m.Ref()); err != nil {
		return Wrapped{}, err
	}
	return d.wrap(ctx, keys, spec, &wire.RegisteredMaster{Revision: m.Header.Revision, Digest: m.Digest[:]}, out, now)
}

// newest refuses a master that is older than one of which an order was wrapped here, and remembers a newer one.
func (d *Desk) newest(m factory.MasterRef) error {
	known := map[string]factory.MasterRef{} // by hardware revision
	data, err := d.read(masters, m.Product+".json")
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(data, &known); err != nil {
			return fmt.Errorf("%s: %w", d.path(masters, m.Product+".json"), err)
		}
	}
	before, is := known[m.Hardware]
	if is {
		if err := m.Follows(before); err != nil || m == before {
			return err
		}
	}
	known[m.Hardware] = m
	if data, err = json.MarshalIndent(known, "", "  "); err != nil {
		return err
	}
	return d.write("desk.master", append(data, '\n'), 0o600, masters, m.Product+".json")
}
