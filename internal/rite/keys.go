package rite

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/shares"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/wire"
)

// Each key has a directory of its own, under a passphrase of its own: that of its holder, or one that nobody has seen and that was cut into
// shares.

// make makes a key. What an interrupted attempt has left was never used, and is removed: shares that were handed out are void.
func (r *run) make(ctx context.Context, k ceremony.Key) (note string, err error) {
	if k.PKCS11 != nil {
		return r.makeInModule(ctx, k)
	}
	dir := filepath.Join(r.o.Dir, dirKeys, k.Name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	secret := ""
	if len(k.Holders) == 1 {
		secret, err = r.newPassphrase(ctx, k.Holders[0], "key "+k.Name)
	} else {
		secret, note, err = r.cut(ctx, k)
	}
	if err != nil {
		return "", err
	}
	iterations := r.o.Iterations
	if len(k.Holders) > 1 {
		iterations = min(iterations, 10_000) // 256 random bits need no stretching
	}
	store, err := soft.Create(dir, secret, iterations)
	if err != nil {
		return "", err
	}
	s, err := store.Generate(k.Name, k.MadeOf())
	if err != nil {
		return "", err
	}
	r.signer[k.Name] = s
	return note, nil
}

// cut makes a secret and the holders' shares of it.
func (r *run) cut(ctx context.Context, k ceremony.Key) (secret, note string, err error) {
	secret, all, err := shares.Cut(k.Name, k.Holders, k.Need, r.o.Iterations, r.o.Rehearsal, func(holder string) (string, error) {
		return r.newPassphrase(ctx, holder, "your share of "+k.Name)
	})
	if err != nil {
		return "", "", err
	}
	for _, s := range all {
		text, err := s.Print()
		if err != nil {
			return "", "", err
		}
		if err := durable.WriteFile(r.sharePath(k.Name, s.Holder), []byte(text), 0o600); err != nil {
			return "", "", err
		}
		r.desk.Say(fmt.Sprintf("  share of %s: %s, to be printed or put on a stick of its own", s.Holder, r.sharePath(k.Name, s.Holder)))
	}
	return secret, fmt.Sprintf("%d shares, any %d of which have the key; set %s", len(all), k.Need, all[0].Set()), nil
}

func (r *run) newPassphrase(ctx context.Context, person, what string) (string, error) {
	pass, err := r.desk.Passphrase(ctx, person, what, true)
	if err == nil && pass == "" {
		err = fmt.Errorf("%s gave no passphrase for %s", person, what)
	}
	return pass, err
}

func (r *run) makeInModule(ctx context.Context, k ceremony.Key) (string, error) {
	v, err := r.module(ctx, k)
	if err != nil {
		return "", err
	}
	s, err := v.Signer(k.Name)
	if err != nil { // an interrupted attempt may have made it
		if s, err = v.GenerateP256(k.Name); err != nil {
			return "", err
		}
	}
	r.signer[k.Name] = s
	return fmt.Sprintf("in token %s", k.PKCS11.Token), nil
}

func (r *run) module(ctx context.Context, k ceremony.Key) (Vault, error) {
	if r.o.Module == nil {
		return nil, fmt.Errorf("key %s is in a PKCS#11 module, and this program was built without: build it with cgo", k.Name)
	}
	pin, err := r.desk.Passphrase(ctx, k.Holders[0], "token "+k.PKCS11.Token, false)
	if err != nil {
		return nil, err
	}
	v, end, err := r.o.Module(*k.PKCS11, pin)
	if err != nil {
		return nil, err
	}
	r.ends = append(r.ends, end)
	return v, nil
}

// open gives a key, asking its holders, and checks that it is the right one.
func (r *run) open(ctx context.Context, name string) (crypto.Signer, error) {
	if s := r.signer[name]; s != nil {
		return s, nil
	}
	k, _ := r.s.KeyOf(name)
	s, err := r.unlock(ctx, k)
	if err != nil {
		return nil, err
	}
	spki, err := wire.SPKIOf(s.Public())
	if err != nil {
		return nil, err
	}
	want := k.ID
	if r.o.Rehearsal {
		want = ""
	}
	for _, st := range r.steps {
		if st.Key == name && len(st.SPKI) > 0 {
			want = ceremony.KeyID(st.SPKI)
		}
	}
	if got := ceremony.KeyID(spki); want != "" && got != want {
		return nil, fmt.Errorf("key %s has ID %s, wanted is %s: the right key is elsewhere", name, got, want)
	}
	r.signer[name] = s
	return s, nil
}

func (r *run) unlock(ctx context.Context, k ceremony.Key) (crypto.Signer, error) {
	if k.PKCS11 != nil {
		v, err := r.module(ctx, k)
		if err != nil {
			return nil, err
		}
		return v.Signer(k.Name)
	}
	dir, err := r.find(k.Name)
	if err != nil {
		return nil, err
	}
	secret := ""
	if len(k.Holders) == 1 {
		secret, err = r.desk.Passphrase(ctx, k.Holders[0], "key "+k.Name, false)
	} else {
		secret, err = r.gather(ctx, k)
	}
	if err != nil {
		return nil, err
	}
	store, err := soft.Open(dir, secret)
	if err != nil {
		return nil, err
	}
	return store.Signer(k.Name)
}

// find looks for a key's directory: made here, by an earlier ceremony, or one of offline keys.
func (r *run) find(name string) (string, error) {
	dirs := []string{filepath.Join(r.o.Dir, dirKeys, name)}
	if !r.o.Rehearsal { // a rehearsal comes near no real key
		for _, from := range r.o.From {
			dirs = append(dirs, filepath.Join(from, dirKeys, name), from, filepath.Join(from, name))
		}
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, name+".key")); err == nil {
			return d, nil
		}
	}
	return "", fmt.Errorf("key %s is neither here nor in %s: name its directory with --from", name, strings.Join(r.o.From, ", "))
}

// gather has enough holders open their shares. Who gives no passphrase is not here, and the next is asked.
func (r *run) gather(ctx context.Context, k ceremony.Key) (string, error) {
	var opened []shares.Opened
	for _, who := range k.Holders {
		if len(opened) == k.Need {
			break
		}
		text, err := r.share(ctx, k.Name, who)
		if err != nil {
			return "", err
		}
		if len(text) == 0 {
			continue
		}
		s, err := shares.Parse(text)
		if err != nil {
			return "", fmt.Errorf("share of %s: %w", who, err)
		}
		if s.Key != k.Name || s.Rehearsal != r.o.Rehearsal {
			return "", fmt.Errorf("share of %s: it is of key %s, or of a rehearsal", who, s.Key)
		}
		pass, err := r.desk.Passphrase(ctx, who, "your share of "+k.Name, false)
		if err != nil {
			return "", err
		}
		if pass == "" {
			continue
		}
		o, err := s.Open(pass)
		if err != nil {
			return "", err
		}
		opened = append(opened, o)
	}
	return shares.Join(opened)
}

// share finds the text of a holder's share, or asks for it.
func (r *run) share(ctx context.Context, key, who string) ([]byte, error) {
	paths := []string{r.sharePath(key, who)}
	if !r.o.Rehearsal {
		for _, from := range r.o.From {
			paths = append(paths, filepath.Join(from, dirShares, key+"-"+who+".share"), filepath.Join(from, key+"-"+who+".share"))
		}
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
	}
	text, err := r.desk.Share(ctx, who, key)
	return []byte(text), err
}

// standIns makes, for a rehearsal, what would be there already: keys that the script does not make, and the root's certificate.
func (r *run) standIns(ctx context.Context) error {
	if !r.o.Rehearsal {
		return r.findRoot()
	}
	for _, k := range r.s.Keys {
		if r.s.Makes(k.Name) {
			continue
		}
		if _, err := r.find(k.Name); err == nil && k.PKCS11 == nil {
			continue
		}
		k.PKCS11 = nil // no real module is touched
		r.desk.Say("REHEARSAL: a key of its own stands in for " + k.Name)
		if _, err := r.make(ctx, k); err != nil {
			return err
		}
	}
	for i := range r.s.Keys {
		r.s.Keys[i].PKCS11 = nil
	}
	if err := r.findRoot(); err != nil || r.s.Root == "" || r.root != nil {
		return err
	}
	i := slices.IndexFunc(r.s.Steps, func(st ceremony.Step) bool { return st.Do == ceremony.DoGrant || st.Do == ceremony.DoList })
	if i < 0 {
		return nil
	}
	k, err := r.open(ctx, r.s.Steps[i].Key)
	if err != nil {
		return err
	}
	root, err := pki.NewRoot(r.oem, k, r.o.Now())
	if err != nil {
		return err
	}
	r.root = root.Cert
	return durable.WriteFile(r.out(r.s.Root), root.Cert.Raw, 0o644)
}
