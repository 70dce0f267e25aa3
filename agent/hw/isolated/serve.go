package isolated

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/frame"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/suite"
)

// maxAtOnce bounds questions that are answered at the same time; the others wait at the socket.
const maxAtOnce = 16

// Serve answers at a unix socket with the keys in dir, for processes of the user uid alone, until ctx ends.
func Serve(ctx context.Context, l *net.UnixListener, dir string, uid uint32) error {
	s := &server{dir: dir, uid: uid}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	places := make(chan struct{}, maxAtOnce)
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			_ = s.answer(conn) // who asks sees that no answer comes
			_ = conn.Close()
		})
	}
}

type server struct {
	dir string
	uid uint32
	mu  sync.RWMutex // writers change the directory
}

func (s *server) answer(conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if peer, err := userOf(conn); err != nil || peer != s.uid {
		return frame.Send(conn, reply{Fault: "other", Text: fmt.Sprintf("user %d may not ask here", peer)}, maxFrame)
	}
	var q question
	if err := frame.Receive(conn, &q, maxFrame); err != nil {
		return err
	}
	data, err := s.do(q)
	if err != nil {
		for word, known := range faults {
			if errors.Is(err, known) {
				return frame.Send(conn, reply{Fault: word}, maxFrame)
			}
		}
		return frame.Send(conn, reply{Fault: "other", Text: err.Error()}, maxFrame)
	}
	return frame.Send(conn, reply{Data: data}, maxFrame)
}

// userOf is the kernel's word for who has connected.
func userOf(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) { cred, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if asked != nil {
		return 0, asked
	}
	return cred.Uid, nil
}

func (s *server) do(q question) ([]byte, error) {
	path, err := s.path(q.Name)
	if err != nil {
		return nil, err
	}
	if (q.Name == hw.KeyCode) != (q.Do == doExchange) && q.Do != doDestroy {
		return nil, fmt.Errorf("%.20q: %w: one key agrees on secrets, and signs nothing", q.Name, hw.ErrNoKey)
	}
	switch q.Do {
	case doExchange:
		return s.exchange(path, q.Data)
	case doGenerate:
		return s.generate(path, q.Suite)
	case doDestroy:
		return nil, s.destroy(path)
	case doPublic, doSign:
		key, err := s.load(path)
		if err != nil {
			return nil, err
		}
		if q.Do == doPublic {
			return suite.MarshalPublic(key.Public())
		}
		return key.Sign(rand.Reader, q.Data, crypto.Hash(q.Hash))
	}
	return nil, fmt.Errorf("there is no question %.20q", q.Do)
}

// exchange gives the public point, or the secret that is agreed on with another's.
func (s *server) exchange(path string, point []byte) ([]byte, error) {
	signer, err := s.load(path)
	if errors.Is(err, hw.ErrNoKey) && len(point) == 0 {
		if _, err = s.generate(path, suite.P256); err == nil || errors.Is(err, hw.ErrKeyExists) {
			signer, err = s.load(path)
		}
	}
	if err != nil {
		return nil, err
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("it is on no curve")
	}
	own, err := key.ECDH()
	if err != nil {
		return nil, err
	}
	if len(point) == 0 {
		return own.PublicKey().Bytes(), nil
	}
	peer, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return nil, err
	}
	return own.ECDH(peer)
}

func (s *server) path(name string) (string, error) {
	if name == "" || len(name) > 32 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", fmt.Errorf("key name %.40q: lower-case letters, digits and '-' only, at most 32", name)
	}
	return filepath.Join(s.dir, name+".key"), nil
}

func (s *server) load(path string) (crypto.Signer, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return load(path)
}

func load(path string) (crypto.Signer, error) {
	der, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hw.ErrNoKey
	}
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return suite.ParsePrivate(der)
}

func (s *server) generate(path string, id suite.ID) ([]byte, error) {
	set, err := suite.Get(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hw.ErrSuite, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := load(path); !errors.Is(err, hw.ErrNoKey) {
		return nil, errors.Join(hw.ErrKeyExists, err)
	}
	key, err := set.Generate()
	if err != nil {
		return nil, err
	}
	der, err := suite.MarshalPrivate(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	if err := put(path, der); err != nil {
		return nil, err
	}
	return suite.MarshalPublic(key.Public())
}

// put writes a key whole or not at all, on the disk when it returns.
func put(path string, der []byte) (err error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(der)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (s *server) destroy(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := os.Remove(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a cut
		return err
	}
	return syncDir(s.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
