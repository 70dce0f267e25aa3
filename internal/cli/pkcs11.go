package cli

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/rite"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/suite"
)

const envPIN = "HALLMARK_PIN"

// modules are the PKCS#11 libraries and tokens that a command has opened: a library is loaded once, however many of its tokens are used.
type modules struct {
	libraries map[string]*pkcs11.Library
	tokens    []*pkcs11.Store
}

func (m *modules) open(path, label, pin string) (*pkcs11.Store, error) {
	if m.libraries == nil {
		m.libraries = map[string]*pkcs11.Library{}
	}
	l := m.libraries[path]
	if l == nil {
		var err error
		if l, err = pkcs11.Load(path); err != nil {
			return nil, err
		}
		m.libraries[path] = l
	}
	s, err := l.Open(label, []byte(pin))
	if err == nil {
		m.tokens = append(m.tokens, s)
	}
	return s, err
}

// forRite opens a token for a ceremony.
func (m *modules) forRite(t ceremony.Token, pin string) (rite.Token, error) {
	s, err := m.open(t.Module, t.Token, pin)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close logs out everywhere.
func (m *modules) Close() error {
	var errs []error
	for _, t := range m.tokens {
		errs = append(errs, t.Close())
	}
	for _, l := range m.libraries {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// pinFor reads the PIN of a token: from its file, the environment, or the terminal.
func pinFor(ctx context.Context, s streams, u pkcs11.URI) (string, error) {
	pin := os.Getenv(envPIN)
	if u.PIN != "" {
		data, err := readFile(u.PIN, 1<<10)
		if err != nil {
			return "", fmt.Errorf("PIN of token %s: %w", u.Token, err)
		}
		pin = strings.TrimRight(string(data), "\r\n")
	}
	if in, ok := s.in.(*os.File); ok && pin == "" && term.IsTerminal(int(in.Fd())) {
		var err error
		if pin, err = ask(ctx, s, in, fmt.Sprintf("PIN of token %s: ", u.Token)); err != nil {
			return "", err
		}
	}
	if pin == "" {
		return "", usagef("the PIN of token %q is needed: name its file (pin-source in the URI, pin_file in ca.json), set %s, or use a terminal", u.Token, envPIN)
	}
	return pin, nil
}

// openToken opens the one token that a command works with.
func openToken(ctx context.Context, s streams, u pkcs11.URI) (*pkcs11.Store, error) {
	pin, err := pinFor(ctx, s, u)
	if err != nil {
		return nil, err
	}
	return pkcs11.Open(pkcs11.Config{Path: u.Module, Label: u.Token, PIN: []byte(pin)})
}

// tokenKey opens a key in a token, for as long as the process lives.
func tokenKey(ctx context.Context, s streams, uri string) (crypto.Signer, error) {
	u, err := pkcs11.ParseURI(uri)
	if err == nil && u.Object == "" {
		err = fmt.Errorf("%s names no key: add ;object=KEY after the token", uri)
	}
	if err != nil {
		return nil, usageError{err}
	}
	token, err := openToken(ctx, s, u)
	if err != nil {
		return nil, err
	}
	return token.Signer(u.Object)
}

// layered has new keys of CAs in the token, and those that were made before in files, until they are replaced.
type layered struct {
	token *pkcs11.Store
	files *soft.Store
}

// Signer implements cad.Keys.
func (l layered) Signer(name string) (crypto.Signer, error) {
	k, err := l.token.Signer(name)
	if errors.Is(err, pkcs11.ErrNoKey) {
		return l.files.Signer(name)
	}
	return k, err
}

// GenerateP256 implements cad.Keys.
func (l layered) GenerateP256(name string) (crypto.Signer, error) { return l.token.GenerateP256(name) }

// divided is an instance's keys: those of CAs in a token, all others in files.
type divided struct {
	*soft.Store
	token *pkcs11.Store
	made  []string // in the token, by this process
}

// Signer implements server.Vault. A CA's key is nowhere but in the token: a file of its name would be somebody's own.
func (d *divided) Signer(name string) (crypto.Signer, error) {
	if server.IsCAKey(name) {
		return d.token.Signer(name)
	}
	return d.Store.Signer(name)
}

// GenerateP256 implements server.Vault.
func (d *divided) GenerateP256(name string) (crypto.Signer, error) {
	if !server.IsCAKey(name) {
		return d.Store.GenerateP256(name)
	}
	return d.Generate(name, suite.P256)
}

// Generate makes a key of a suite where keys of that name are.
func (d *divided) Generate(name string, id suite.ID) (crypto.Signer, error) {
	if !server.IsCAKey(name) {
		return d.Store.Generate(name, id)
	}
	k, err := d.token.Generate(name, id)
	if err == nil {
		d.made = append(d.made, name)
	}
	return k, err
}

// undo destroys what was made, where nothing came of it.
func (d *divided) undo(ctx context.Context) error {
	var errs []error
	for _, name := range d.made {
		errs = append(errs, d.token.Destroy(ctx, name))
	}
	return errors.Join(errs...)
}

// online gives the keys of an instance, and how they are closed: in files, and those of CAs in the token of uri, if there is one.
func online(ctx context.Context, s streams, uri string, files func() (*soft.Store, error)) (server.Vault, func() error, error) {
	none := func() error { return nil }
	if uri == "" {
		v, err := files()
		return v, none, err
	}
	u, err := pkcs11.ParseURI(uri)
	if err != nil {
		return nil, none, usageError{err}
	}
	token, err := openToken(ctx, s, u)
	if err != nil {
		return nil, none, err
	}
	f, err := files()
	if err != nil {
		return nil, none, errors.Join(err, token.Close())
	}
	return &divided{Store: f, token: token}, token.Close, nil
}
