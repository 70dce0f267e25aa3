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
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/internal/keys/shares"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/wire"
)

// Each key has a directory of its own, under a passphrase of its own: that of its holder, or one that nobody has seen and that was cut into
// shares; or it is in its holder's token.

// make makes a key. What an interrupted attempt has left was never used, and is removed: shares that were handed out are void.
func (r *run) make(ctx context.Context, k ceremony.Key) (note string, err error) {
	if k.PKCS11 != nil {
		return r.makeInToken(ctx, k)
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

// makeInToken makes a key in a token, which it never leaves. A key of that name that is there already is used only if an attempt of this very
// ceremony has made it: where another comes from, and who has used it since, nobody here has seen. It is not destroyed either, because it may be one that
// somebody needs.
func (r *run) makeInToken(ctx context.Context, k ceremony.Key) (string, error) {
	t, err := r.token(ctx, k)
	if err != nil {
		return "", err
	}
	mark := filepath.Join(r.o.Dir, dirKeys, k.Name+".making")
	_, marked := os.Stat(mark)
	if marked != nil && !errors.Is(marked, fs.ErrNotExist) {
		return "", marked
	}
	s, err := t.Signer(k.Name)
	switch {
	case err == nil && marked != nil:
		return "", fmt.Errorf("token %s has a key called %s that this ceremony did not make: take another token, or another name for the key", k.PKCS11.Token, k.Name)
	case errors.Is(err, pkcs11.ErrNoKey):
		if err := durable.WriteFile(mark, []byte(t.About()+"\n"), 0o600); err != nil {
			return "", err
		}
		if s, err = t.Generate(k.Name, k.MadeOf()); err != nil {
			return "", err
		}
	case err != nil:
		return "", err
	}
	r.signer[k.Name] = s
	return fmt.Sprintf("in token %s: %s", k.PKCS11.Token, t.About()), nil
}

// token opens the token of a key, asking its holder for the PIN once.
func (r *run) token(ctx context.Context, k ceremony.Key) (Token, error) {
	if t := r.tokens[*k.PKCS11]; t != nil {
		return t, nil
	}
	pin, err := r.desk.PIN(ctx, k.Holders[0], k.PKCS11.Token)
	if err != nil {
		return nil, err
	}
	if pin == "" { // a token counts wrong PINs, and none is one, too
		return nil, fmt.Errorf("%s gave no PIN for token %s", k.Holders[0], k.PKCS11.Token)
	}
	t, err := r.o.Token(*k.PKCS11, pin)
	if err != nil {
		return nil, err
	}
	r.tokens[*k.PKCS11] = t
	return t, nil
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
		t, err := r.token(ctx, k)
		if err != nil {
			return nil, err
		}
		return t.Signer(k.Name)
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
