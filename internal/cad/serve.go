package cad

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

// Keys is where the keys are: keys/soft, or keys/pkcs11.
type Keys interface {
	Signer(name string) (crypto.Signer, error)
	GenerateP256(name string) (crypto.Signer, error)
}

// Config is what a Server works with.
type Config struct {
	Dir       string // root.der, certs and signed.log
	Keys      Keys
	Hosts     []string      // names that servers' certificates may have
	Orders    bool          // sign CAs of orders
	OCSP      bool          // sign answers about single certificates
	Life      time.Duration // of LDevIDs, at most; 0: what the profile has
	PerMinute int           // certificates of each key; 0: 6000
	PerHour   int           // CAs of orders of each key; 0: 60
	UID       int           // whose processes may ask; 0 is root
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
}

// keysPerDay bounds the keys that are made here: an order has none here, and CAs are asked for by people, a few in a year.
const keysPerDay = 32

// Server signs what it has read.
type Server struct {
	c     Config
	root  *x509.Certificate
	trace *os.File // signed.log

	mu    sync.Mutex
	bound map[string]*x509.Certificate // certificates by the name of their key; guarded by mu
	made  *rate.Limiter                // keys
	certs map[string]*rate.Limiter     // by key; guarded by mu
	cas   map[string]*rate.Limiter     // by key; guarded by mu
	lines map[net.Conn]struct{}        // guarded by mu
}

// RootFile is the root that is believed, DER, in the directory.
const RootFile = "root.der"

// certFile is the certificate of the CA whose key is called name.
func certFile(dir, name string) string { return filepath.Join(dir, "certs", name+".der") }

// New makes a server of what is in c.Dir.
func New(c Config) (*Server, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.PerMinute == 0 {
		c.PerMinute = 6000
	}
	if c.PerHour == 0 {
		c.PerHour = 60
	}
	der, err := os.ReadFile(filepath.Join(c.Dir, RootFile))
	if err != nil {
		return nil, fmt.Errorf("the root that is believed: %w; `hallmark ca separate` puts it there", err)
	}
	s := &Server{c: c, bound: map[string]*x509.Certificate{}, certs: map[string]*rate.Limiter{}, cas: map[string]*rate.Limiter{}, lines: map[net.Conn]struct{}{}, made: rate.NewLimiter(rate.Every(24*time.Hour/keysPerDay), keysPerDay)}
	if s.root, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(c.Dir, RootFile), err)
	}
	if role, err := pki.RoleOf(s.root); err != nil || role != profile.Root {
		return nil, fmt.Errorf("%s is not a root's", filepath.Join(c.Dir, RootFile))
	}
	if s.trace, err = os.OpenFile(filepath.Join(c.Dir, "signed.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	return s, nil
}

// Close closes the record.
func (s *Server) Close() error { return s.trace.Close() }

// maxLines bounds connections: a server holds a few.
const maxLines = 64

// Serve answers on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		_ = l.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.lines {
			_ = c.Close()
		}
	})
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.admit(c); err != nil {
			s.c.Log.WarnContext(ctx, "somebody was not let in", "error", err)
			_ = c.Close()
			continue
		}
		wg.Go(func() { s.answer(ctx, c) })
	}
}

// admit looks who is at the other end, as the kernel says.
func (s *Server) admit(c net.Conn) error {
	uid, err := peerUID(c)
	if err != nil {
		return err
	}
	if uid != s.c.UID {
		return fmt.Errorf("a process of user %d asks, and only those of user %d may", uid, s.c.UID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines) >= maxLines {
		return fmt.Errorf("there are %d connections already", len(s.lines))
	}
	s.lines[c] = struct{}{}
	return nil
}

// patience is how long a request that has begun may take to come.
const patience = 30 * time.Second

func (s *Server) answer(ctx context.Context, c net.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.lines, c)
		s.mu.Unlock()
		_ = c.Close()
	}()
	for {
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return
		}
		data, err := readFrame(impatient{c}, maxRequest)
		if err != nil {
			return // it went away, or does not keep to the form
		}
		var out reply
		r, err := decodeRequest(data)
		if err == nil {
			out.Out, err = s.do(r)
		} else {
			err = refused{codeRefused, err}
		}
		if err != nil {
			out = reply{Code: codeFailed, Error: err.Error()}
			if e, ok := errors.AsType[refused](err); ok {
				out.Code = e.code
			}
			s.c.Log.WarnContext(ctx, "not signed", "key", r.Key, "code", out.Code, "error", err)
		}
		if err := writeFrame(c, out); err != nil {
			return
		}
	}
}

// impatient waits for the beginning of a request as long as it takes, and for the rest not.
type impatient struct{ c net.Conn }

func (i impatient) Read(p []byte) (int, error) {
	n, err := i.c.Read(p)
	if err == nil {
		err = i.c.SetReadDeadline(time.Now().Add(patience))
	}
	return n, err
}

// refused is an error with a code for the caller.
type refused struct {
	code string
	error
}

func (r refused) Unwrap() error { return r.error }

func (s *Server) do(r request) ([]byte, error) {
	switch r.Op {
	case opMake:
		return s.make(r.Key)
	case opRequest:
		return s.request(r)
	case opBind:
		return nil, s.bind(r.Key, r.Message)
	case opSign:
		return s.sign(r)
	case opPublic:
	}
	key, err := s.key(r.Key)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(key.Public())
}

func (s *Server) key(name string) (crypto.Signer, error) {
	k, err := s.c.Keys.Signer(name)
	if err != nil {
		return nil, refused{codeUnknown, err}
	}
	return k, nil
}

// make makes a key. Until it is bound to a certificate that the root has signed it signs nothing but the request for one.
func (s *Server) make(name string) ([]byte, error) {
	if _, asked := pki.RequestedRole(name); !asked && !strings.HasPrefix(name, "rekey-ca-") {
		return nil, refused{codeRefused, fmt.Errorf("no key called %q is made here", name)}
	}
	if _, err := s.c.Keys.Signer(name); err == nil {
		return nil, refused{codeRefused, fmt.Errorf("there is a key called %q", name)}
	}
	if !s.made.AllowN(s.c.Now(), 1) {
		return nil, refused{codeLimit, fmt.Errorf("%d keys were made here within a day: the rest waits", keysPerDay)}
	}
	k, err := s.c.Keys.GenerateP256(name)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(k.Public())
}

// request signs a request for a CA over the key, and fills the key in.
func (s *Server) request(r request) ([]byte, error) {
	role, asked := pki.RequestedRole(r.Key)
	var q wire.CARequest
	if err := wire.Unmarshal(r.Message, &q, wire.MaxCARequest); err != nil {
		return nil, refused{codeRefused, err}
	}
	if !asked || profile.Role(q.Role) != role {
		return nil, refused{codeRefused, fmt.Errorf("key %q is not for a CA of role %q", r.Key, q.Role)}
	}
	key, err := s.key(r.Key)
	if err != nil {
		return nil, err
	}
	if _, err := s.certificate(r.Key); err == nil {
		return nil, refused{codeRefused, fmt.Errorf("key %q has a certificate", r.Key)}
	}
	return wire.SignCARequest(q, key)
}

// bind takes in the certificate of a key. Only then it is known what the key may sign.
func (s *Server) bind(name string, der []byte) error {
	key, err := s.key(name)
	if err != nil {
		return err
	}
	cert, err := s.check(der)
	if err != nil {
		return refused{codeRefused, err}
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(cert.PublicKey) {
		return refused{codeRefused, fmt.Errorf("the certificate is not of key %q", name)}
	}
	if old, err := s.certificate(name); err == nil {
		if bytes.Equal(old.Raw, der) {
			return nil
		}
		return refused{codeRefused, fmt.Errorf("key %q has another certificate", name)}
	}
	if err := durable.MkdirAll(filepath.Join(s.c.Dir, "certs"), 0o700); err != nil {
		return err
	}
	if err := durable.WriteFile(certFile(s.c.Dir, name), der, 0o600); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound[name] = cert
	return nil
}

// check believes a CA's certificate up to the root: those below it, and re-key CAs of a product CA that is bound here.
func (s *Server) check(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	trust, err := pki.NewTrust([]*x509.Certificate{s.root}, s.all()...)
	if err != nil {
		return nil, err
	}
	if role, err := pki.RoleOf(cert); err != nil || role == profile.Root {
		return nil, fmt.Errorf("%q is not a CA below the root", cert.Subject)
	}
	return cert, trust.AddCA(cert)
}

// all gives the certificates that are bound.
func (s *Server) all() (out []*x509.Certificate) {
	names, err := os.ReadDir(filepath.Join(s.c.Dir, "certs"))
	if err != nil {
		return nil
	}
	for _, n := range names {
		if name, ok := strings.CutSuffix(n.Name(), ".der"); ok {
			if c, err := s.certificate(name); err == nil {
				out = append(out, c)
			}
		}
	}
	return out
}

// certificate gives the certificate that a key is bound to.
func (s *Server) certificate(name string) (*x509.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.bound[name]; c != nil {
		return c, nil
	}
	der, err := os.ReadFile(certFile(s.c.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refused{codeUnknown, fmt.Errorf("key %q has no certificate yet: it signs nothing", name)}
	}
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile(s.c.Dir, name), err)
	}
	s.bound[name] = c
	return c, nil
}

func (s *Server) sign(r request) ([]byte, error) {
	ca, err := s.certificate(r.Key)
	if err != nil {
		return nil, err
	}
	key, err := s.key(r.Key)
	if err != nil {
		return nil, err
	}
	now := s.c.Now()
	m, err := pki.Allowed{CA: ca, Hosts: s.c.Hosts, SubCA: s.c.Orders, OCSP: s.c.OCSP, Life: s.c.Life}.Judge(r.Message, now)
	if err != nil {
		return nil, refused{codeRefused, err}
	}
	if err := s.limit(r.Key, m, now); err != nil {
		return nil, err
	}
	if err := s.record(r.Key, m, r.Message, now); err != nil {
		return nil, fmt.Errorf("what is signed cannot be recorded: %w", err)
	}
	hash := pki.HashFor(key.Public())
	h := hash.New()
	_, _ = h.Write(r.Message) // a hash takes everything
	return key.Sign(rand.Reader, h.Sum(nil), hash)
}

// limit bounds what a thief gets in the time until somebody looks.
func (s *Server) limit(key string, m pki.Message, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	of, n, per := s.certs, s.c.PerMinute, time.Minute
	switch {
	case m.Kind != "certificate":
		return nil // a list hurts nobody that would not be hurt by its absence
	case m.Role == profile.Order || m.Role == profile.Verdict:
		of, n, per = s.cas, s.c.PerHour, time.Hour
	}
	if of[key] == nil {
		of[key] = rate.NewLimiter(rate.Limit(float64(n)/per.Seconds()), n)
	}
	if !of[key].AllowN(now, 1) {
		return refused{codeLimit, fmt.Errorf("key %q has signed %d in %s: it waits", key, n, per)}
	}
	return nil
}

// record writes what is about to be signed, before it is signed.
func (s *Server) record(key string, m pki.Message, message []byte, now time.Time) error {
	sum := sha256.Sum256(message)
	line, err := json.Marshal(map[string]any{
		"at": now.UTC().Format(time.RFC3339Nano), "key": key, "kind": m.Kind, "role": m.Role, "name": m.Name, "serial": m.Serial, "entries": m.Count, "sha256": hex.EncodeToString(sum[:]),
	})
	if err != nil {
		return err
	}
	_, err = s.trace.Write(append(line, '\n')) // one write: lines of several callers do not mix
	return err
}
