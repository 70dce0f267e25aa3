package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/isolated"
	"github.com/hallmark-iot/hallmark/agent/hw/pkcs11"
	"github.com/hallmark-iot/hallmark/agent/hw/tpm"
)

// stores are the key stores that a board may have beside it, by the word before the colon, and what opens them.
var stores = map[string]func(at string) (hw.KeyStore, func() error, error){
	"tpm": func(at string) (hw.KeyStore, func() error, error) {
		k, err := tpm.Open(at)
		if err != nil {
			return nil, nil, err
		}
		return k, k.Close, nil
	},
	"isolated": func(at string) (hw.KeyStore, func() error, error) {
		k, err := isolated.Open(at)
		return k, func() error { return nil }, err
	},
	"pkcs11": func(at string) (hw.KeyStore, func() error, error) {
		c, pin, err := parseToken(at)
		if err != nil {
			return nil, nil, err
		}
		data, err := os.ReadFile(pin)
		if err != nil {
			return nil, nil, fmt.Errorf("PIN of token %q: %w", c.Label, err)
		}
		c.PIN = strings.TrimRight(string(data), "\r\n")
		k, err := pkcs11.Open(c)
		if err != nil {
			return nil, nil, err
		}
		return k, k.Close, nil
	},
}

// wantKeys is how the key store of a board is written.
const wantKeys = "want tpm:PATH, isolated:SOCKET or pkcs11:token=LABEL?module-path=LIBRARY&pin-source=FILE"

// checkKeys says whether a key store is written as one.
func checkKeys(keys string) error {
	word, at, ok := strings.Cut(keys, ":")
	if _, known := stores[word]; keys != "" && (!ok || !known || at == "") {
		return fmt.Errorf("keys %q: %s, or nothing", keys, wantKeys)
	}
	if word == "pkcs11" {
		if _, _, err := parseToken(at); err != nil {
			return fmt.Errorf("keys: %w", err)
		}
	}
	return nil
}

// parseToken reads what is behind the scheme of a PKCS #11 URI (RFC 7512), as far as it is needed here.
func parseToken(at string) (c pkcs11.Config, pin string, err error) {
	path, query, _ := strings.Cut(at, "?")
	known := map[string]*string{"token": &c.Label, "module-path": &c.Path, "pin-source": &pin}
	for _, part := range append(strings.Split(path, ";"), strings.Split(query, "&")...) {
		name, value, _ := strings.Cut(part, "=")
		to, ok := known[name]
		if !ok {
			return c, "", fmt.Errorf("pkcs11:%s: attribute %q: %s", at, name, wantKeys)
		}
		if *to, err = url.PathUnescape(value); err != nil || *to == "" {
			return c, "", fmt.Errorf("pkcs11:%s: attribute %q: %s", at, name, wantKeys)
		}
		delete(known, name)
	}
	if len(known) > 0 {
		return c, "", fmt.Errorf("pkcs11:%s: %s", at, wantKeys)
	}
	pin = strings.TrimPrefix(pin, "file:")
	return c, pin, nil
}

func newKeys() *cobra.Command {
	var dir, socket string
	uid := uint32(os.Getuid())
	c := &cobra.Command{
		Use:   "keys --dir DIR [--socket SOCKET]",
		Short: "Keep a device's keys, in a process of their own",
		Long: `Keeps a device's keys in DIR and signs with them for who connects to SOCKET, a user alone, until Ctrl-C or SIGTERM. It reaches no other file, no
network and no other process, and nobody looks into it: Landlock, seccomp, no core dumps. A kernel that cannot is an error.

For devices without a TPM. Start it before the device, as another user than the agent's, so that the files are not the agent's to read:
SOCKET's directory has to let the agent in. Without --socket it takes the one that a service manager opened for it (systemd's socket activation).`,
		Example: "  hallmark-agent keys --dir /var/lib/hallmark/keys --socket /run/hallmark/keys.sock --user-id 990",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return serveKeys(cmd.Context(), dir, socket, uid) },
	}
	dirFlag(c, &dir, "directory of the keys; it is made")
	c.Flags().StringVar(&socket, "socket", "", "unix socket to answer at; empty: the service manager's")
	c.Flags().Uint32Var(&uid, "user-id", uid, "number of the user whose processes may have things signed")
	return c
}

func serveKeys(ctx context.Context, dir, socket string, uid uint32) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	l, err := keysSocket(socket)
	if err != nil {
		return err
	}
	if err := isolated.Confine(dir); err != nil {
		return errors.Join(fmt.Errorf("the key store cannot be confined: %w", err), l.Close())
	}
	fmt.Printf("keys at %s, for user %d\n", l.Addr(), uid)
	return isolated.Serve(ctx, l, dir, uid)
}

// firstPassed is the first file that a service manager passes (sd_listen_fds(3)).
const firstPassed = 3

// keysSocket makes the socket, or takes the one that was passed.
func keysSocket(path string) (*net.UnixListener, error) {
	if path == "" {
		return passedSocket()
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)                     // it may not, by then
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // the kernel's word for who asks is what counts
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func passedSocket() (*net.UnixListener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		return nil, &usageError{"keys: no service manager passed one socket: want --socket SOCKET"}
	}
	f := os.NewFile(firstPassed, "keys socket")
	l, err := net.FileListener(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("the socket that was passed: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("the socket that was passed is no unix socket"), l.Close())
	}
	return u, nil
}
