package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/cad"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
)

// serveCA runs the process that holds the CAs' keys.
func serveCA(s streams) *cobra.Command {
	var dir, socket string
	var pass secret
	uid := os.Getuid()
	c := &cobra.Command{
		Use: "serve --dir DIR --socket PATH", Short: "Hold the keys of the CAs in a process of their own",
		Long: `Holds the keys of the CAs in a process of their own, and signs for the server on a unix socket. It reads what it is given and signs certificates
of devices, of this server's names and, where ca.json says so, of orders' CAs, and lists of revocations: nothing else, no more than ca.json allows, and
each on record in signed.log before it is signed. DIR is what ` + "`hallmark ca separate`" + ` made. Only processes of user --uid may ask.`,
		Args: cobra.NoArgs, Example: "  hallmark ca serve --dir /var/lib/hallmark-ca --socket /run/hallmark/ca.sock",
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := pass.read(c.Context(), s, "the keys of the CAs", false)
			if err != nil {
				return err
			}
			return runCA(c.Context(), s, dir, socket, p, uid)
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", "", "directory of the CA")
	f.StringVar(&socket, "socket", "", "path of the socket")
	f.IntVar(&uid, "uid", uid, "whose processes may ask; left out: the user's who starts it")
	pass.flag(c)
	return need(c, "dir", "socket")
}

func runCA(ctx context.Context, s streams, dir, socket, pass string, uid int) (err error) {
	settings, err := server.LoadCASettings(dir)
	if err != nil {
		return err
	}
	unlock, err := server.Layout{Dir: dir}.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	files, err := soft.Open(filepath.Join(dir, "keys"), pass)
	if err != nil {
		return err
	}
	var keys cad.Keys = files
	if settings.PKCS11 != nil {
		token, err := openToken(ctx, s, pkcs11.URI{Module: settings.PKCS11.Module, Token: settings.PKCS11.Token, PIN: settings.PKCS11.PINFile})
		if err != nil {
			return err
		}
		defer func() { _ = token.Close() }() // the process ends
		keys = layered{token: token, files: files}
	}
	ca, err := cad.New(cad.Config{
		Dir: dir, Keys: keys, Hosts: settings.Hosts, Orders: settings.Orders, OCSP: settings.OCSP, Life: time.Duration(settings.LifeH) * time.Hour,
		PerMinute: settings.PerMinute, PerHour: settings.PerHour, UID: uid, Log: slog.New(slog.NewTextHandler(s.err, nil)),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ca.Close()) }()
	l, err := listenUnix(ctx, socket, uid)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.err, "holding the keys of the CAs on %s\n", socket); err != nil {
		return errors.Join(err, l.Close())
	}
	return ca.Serve(ctx, l)
}

// listenUnix opens a socket that only one user can reach. What a process that was killed left behind goes away; the lock on the directory says
// that there is no other.
func listenUnix(ctx context.Context, path string, uid int) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is there, and is no socket: choose another path", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// It is made where nobody else can reach it, and moved to its place when its mode is right.
	private, err := os.MkdirTemp(filepath.Dir(path), ".ca-")
	if err != nil {
		return nil, fmt.Errorf("socket: %w; make the directory of the socket, for the user who starts the CA", err)
	}
	defer func() { _ = os.RemoveAll(private) }() // empty, and nobody else can reach it
	hidden := filepath.Join(private, "s")
	l, err := new(net.ListenConfig).Listen(ctx, "unix", hidden)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err = os.Chmod(hidden, 0o600); err == nil && uid != os.Getuid() {
		err = os.Chown(hidden, uid, -1)
	}
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// separateCA moves the keys of the CAs away from a server's.
func separateCA(s streams) *cobra.Command {
	var dir, to, socket string
	var pass, newPass secret
	iterations := soft.Iterations
	c := &cobra.Command{
		Use: "separate --dir DIR --to DIR --socket PATH", Short: "Move the keys of the CAs out of an instance, for `hallmark ca serve`",
		Long: `Moves the keys of the CAs out of an instance into a directory of their own, under a passphrase of their own, and has the instance ask for signatures
on a socket. Stop the server first; then start ` + "`hallmark ca serve`" + ` and the server. It can be run again after a cut.`,
		Args: cobra.NoArgs, Example: "  hallmark ca separate --dir /var/lib/hallmark --to /var/lib/hallmark-ca --socket /run/hallmark/ca.sock",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			l := server.Layout{Dir: dir}
			unlock, err := l.Lock()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, unlock()) }()
			p, err := pass.read(c.Context(), s, "the keys of the instance", false)
			if err != nil {
				return err
			}
			from, err := soft.Open(l.Keys(), p)
			if err != nil {
				return err
			}
			if newPass.file != "" {
				if p, err = newPass.read(c.Context(), s, "the keys of the CAs", true); err != nil {
					return err
				}
			}
			kept, err := openOrCreate(filepath.Join(to, "keys"), p, iterations)
			if err != nil {
				return err
			}
			if socket, err = filepath.Abs(socket); err != nil {
				return err
			}
			moved, err := server.Separate(c.Context(), l, from, kept, to, socket)
			if err != nil {
				return err
			}
			return sheet(s.out, "moved", fmt.Sprintf("%d keys", len(moved)), "to", to, "next", fmt.Sprintf("hallmark ca serve --dir %s --socket %s, and then hallmark serve --dir %s", to, socket, dir))
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", "", "data directory of the instance")
	f.StringVar(&to, "to", "", "directory of the CA, made if it is not there")
	f.StringVar(&socket, "socket", "", "path of the socket that hallmark ca serve will listen on")
	pass.flag(c)
	f.StringVar(&newPass.file, "ca-passphrase-file", "", "file that holds the new passphrase of the CA's keys; left out: the instance's")
	f.IntVar(&iterations, "kdf-iterations", soft.Iterations, "PBKDF2 iterations for the passphrase")
	_ = f.MarkHidden("kdf-iterations") // it exists
	return need(c, "dir", "to", "socket")
}

func openOrCreate(dir, pass string, iterations int) (*soft.Store, error) {
	if _, err := os.Stat(filepath.Join(dir, "master.json")); err == nil {
		return soft.Open(dir, pass)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return soft.Create(dir, pass, iterations)
}
