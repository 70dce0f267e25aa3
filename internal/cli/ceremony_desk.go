package cli

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// riteDesk is the keyboard and the screen that all people of a ceremony sit at. It implements rite.Desk.
type riteDesk struct {
	s           streams
	lines       *bufio.Reader
	passphrases string // directory; empty: the terminal
}

func newDesk(s streams, passphrases string) *riteDesk {
	return &riteDesk{s: s, lines: bufio.NewReader(s.in), passphrases: passphrases}
}

// Say implements rite.Desk. What stands in files was checked to be printable.
func (d *riteDesk) Say(lines ...string) {
	for _, l := range lines {
		fmt.Fprintln(d.s.out, l)
	}
}

// line asks for a line, until ctx ends.
func (d *riteDesk) line(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(d.s.out, prompt)
	type answer struct {
		text string
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		text, err := d.lines.ReadString('\n')
		if errors.Is(err, io.EOF) && text != "" {
			err = nil
		}
		read <- answer{strings.TrimSpace(text), err}
	}()
	select {
	case a := <-read:
		if errors.Is(a.err, io.EOF) {
			return "", errNoYes
		}
		return a.text, a.err
	case <-ctx.Done():
		return "", errors.New("interrupted: it goes on with the same command")
	}
}

// Confirm implements rite.Desk.
func (d *riteDesk) Confirm(ctx context.Context, person, what string) error {
	text, err := d.line(ctx, fmt.Sprintf("%s: %s? Type yes: ", person, what))
	if err == nil && !strings.EqualFold(text, "yes") {
		err = errNoYes
	}
	return err
}

// Type implements rite.Desk.
func (d *riteDesk) Type(ctx context.Context, what string) (string, error) {
	return d.line(ctx, what+": ")
}

// Passphrase implements rite.Desk.
func (d *riteDesk) Passphrase(ctx context.Context, person, what string, isNew bool) (string, error) {
	for {
		pass, err := d.secret(ctx, person, fmt.Sprintf("%s: passphrase for %s (empty: not here): ", person, what))
		if err != nil || pass == "" || !isNew || d.passphrases != "" {
			return pass, err
		}
		again, err := d.secret(ctx, person, "the same again: ")
		if err != nil || again == pass {
			return pass, err
		}
		fmt.Fprintln(d.s.out, "the two differ")
	}
}

// PIN implements rite.Desk.
func (d *riteDesk) PIN(ctx context.Context, person, token string) (string, error) {
	return d.secret(ctx, person+".pin", fmt.Sprintf("%s: PIN of token %s: ", person, token))
}

// secret reads a file of the directory of passphrases, or asks once.
func (d *riteDesk) secret(ctx context.Context, file, prompt string) (string, error) {
	if d.passphrases != "" {
		data, err := readFile(filepath.Join(d.passphrases, file), 4096)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return strings.TrimRight(string(data), "\r\n"), err
	}
	in, ok := d.s.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", usagef("passphrases are needed: use a terminal, or --passphrases DIR")
	}
	return ask(ctx, d.s, in, prompt)
}

// Share implements rite.Desk.
func (d *riteDesk) Share(ctx context.Context, holder, key string) (string, error) {
	path, err := d.line(ctx, fmt.Sprintf("%s: file with your share of %s, - to type it, or nothing if you are not here: ", holder, key))
	if err != nil || path == "" {
		return "", err
	}
	if path != "-" {
		data, err := readFile(path, 16<<10)
		return string(data), err
	}
	var b strings.Builder
	for {
		l, err := d.line(ctx, "  line, or nothing at the end: ")
		if err != nil || l == "" {
			return b.String(), err
		}
		b.WriteString(l + "\n")
	}
}

// nobody stands in for all people of a rehearsal.
type nobody struct{ out io.Writer }

func (n nobody) Say(lines ...string) {
	for _, l := range lines {
		fmt.Fprintln(n.out, l)
	}
}

func (nobody) Confirm(context.Context, string, string) error { return nil }

func (nobody) Passphrase(_ context.Context, person, _ string, _ bool) (string, error) {
	return "rehearsal of " + person, nil
}

func (nobody) PIN(context.Context, string, string) (string, error) {
	return "", errors.New("a rehearsal opens no token")
}
func (nobody) Share(context.Context, string, string) (string, error) { return "", nil }
func (nobody) Type(context.Context, string) (string, error)          { return "rehearsal", nil }

// authority opens the root with its key file.
func (c quickCall) authority(ctx context.Context, s streams) (*pki.Authority, error) {
	der, err := readFile(c.root, 16<<10)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("--root %s is no certificate (DER): %w", c.root, err)
	}
	k, err := keyFile{c.rootKey, c.pass}.open(ctx, s)
	if err != nil {
		return nil, err
	}
	return pki.NewAuthority(profile.Root, cert, k)
}
