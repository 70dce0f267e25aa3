package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const envPassphrase = "HALLMARK_PASSPHRASE"

// secret is where a passphrase comes from: a file, the environment or the terminal; never an argument, which others can see.
type secret struct{ file string }

func (p *secret) flag(c *cobra.Command) {
	c.Flags().StringVar(&p.file, "passphrase-file", "", "file that holds the passphrase, or /dev/fd/N (else "+envPassphrase+", else asked on the terminal)")
}

// read gives the passphrase. On a terminal a new one is asked for twice, because nobody could tell a slip of the hand later.
func (p secret) read(ctx context.Context, s streams, what string, isNew bool) (string, error) {
	pass, err := p.get(ctx, s, what, isNew)
	if err == nil && pass == "" {
		err = usagef("the passphrase is empty: give one")
	}
	return pass, err
}

func (p secret) get(ctx context.Context, s streams, what string, isNew bool) (string, error) {
	if p.file != "" {
		data, err := os.ReadFile(p.file)
		if err != nil {
			return "", fmt.Errorf("passphrase: %w", err)
		}
		return strings.TrimRight(string(data), "\r\n"), nil
	}
	if pass, ok := os.LookupEnv(envPassphrase); ok {
		return pass, nil
	}
	in, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", usagef("a passphrase is needed: give --passphrase-file FILE, set %s, or use a terminal", envPassphrase)
	}
	pass, err := ask(ctx, s, in, "passphrase for "+what+": ")
	if err != nil || !isNew {
		return pass, err
	}
	again, err := ask(ctx, s, in, "the same again: ")
	if err == nil && again != pass {
		err = errors.New("the two passphrases differ: start again")
	}
	return pass, err
}

// ask reads a line without echo, until ctx ends: Ctrl-C at the prompt is an end, and leaves a terminal that echoes.
func ask(ctx context.Context, s streams, in *os.File, prompt string) (string, error) {
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	fmt.Fprint(s.err, prompt)
	defer fmt.Fprintln(s.err)
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return string(l.text), l.err
	case <-ctx.Done():
		return "", errors.Join(errors.New("interrupted"), term.Restore(fd, before))
	}
}
