package cli

import (
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
func (p secret) read(s streams, what string, isNew bool) (string, error) {
	pass, err := p.get(s, what, isNew)
	if err == nil && pass == "" {
		err = usagef("the passphrase is empty: give one")
	}
	return pass, err
}

func (p secret) get(s streams, what string, isNew bool) (string, error) {
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
	pass, err := ask(s, in, "passphrase for "+what+": ")
	if err != nil || !isNew {
		return pass, err
	}
	again, err := ask(s, in, "the same again: ")
	if err == nil && again != pass {
		err = errors.New("the two passphrases differ: start again")
	}
	return pass, err
}

func ask(s streams, in *os.File, prompt string) (string, error) {
	fmt.Fprint(s.err, prompt)
	pass, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(s.err)
	return string(pass), err
}
