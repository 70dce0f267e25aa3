package genuine

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Standing is where a question to a device is.
type Standing string

// The standings.
const (
	Waiting  Standing = "waiting"  // for the device to check in
	Answered Standing = "answered" // the verdict has the answer
	NoAnswer Standing = "no-answer"
)

// Asked is a question as its asker sees it.
type Asked struct {
	ID       string
	Device   string
	Standing Standing
	Expires  time.Time
	Verdict  Verdict // with the answer, once there is one
}

// Ask has a device asked to prove itself over the asker's nonce. Only a device that is heard of regularly is asked, a few times a day: it
// costs the device a signature and a message; and from is asked for a part of these at most. Whoever asks again with the same nonce gets the same question.
func (s *Service) Ask(ctx context.Context, from, id string, nonce []byte) (Asked, error) {
	if n := len(nonce); n < wire.MinAskerNonce || n > wire.MaxAskerNonce {
		return Asked{}, fault.New(fault.Invalid, "genuine.nonce", fmt.Sprintf("a nonce of %d bytes", n), "use 16 to 64 random bytes")
	}
	if _, err := s.Of(ctx, id, nil); err != nil {
		return Asked{}, err
	}
	sum := sha256.Sum256(append([]byte(id), nonce...))
	q := Question{ID: hex.EncodeToString(sum[:16]), Device: id, Nonce: nonce}
	if old, err := s.cfg.Store.Question(ctx, q.ID); err == nil && bytes.Equal(old.Nonce, nonce) {
		return s.shown(ctx, old)
	} else if err != nil && !errors.Is(err, ErrNotFound) {
		return Asked{}, err
	}
	now := s.cfg.Now().UTC()
	k := s.keep(id)
	k.mu.Lock()
	r := k.record
	k.mu.Unlock()
	if err := s.reachable(r, now); err != nil {
		return Asked{}, err
	}
	if !s.askers.may(from, id, now) {
		return Asked{}, fault.New(fault.Unavailable, "genuine.yours", fmt.Sprintf("you asked this device %d times within a day", perAsker), "leave the others some; ask again tomorrow, or ask the device itself: hallmark verify --local")
	}
	q.Asked, q.Expires = now, now.Add(s.cfg.Wait)
	s.mu.Lock()
	full := len(s.open) >= maxOpen
	s.mu.Unlock()
	if full {
		s.askers.back(from, id)
		return Asked{}, fault.New(fault.Unavailable, "genuine.crowded", "too many devices are being asked", "ask again in some minutes")
	}
	err := s.cfg.Store.AskDevice(ctx, q, now.Add(-24*time.Hour), s.cfg.Daily)
	if err != nil {
		s.askers.back(from, id)
	}
	switch {
	case errors.Is(err, ErrBusy):
		return Asked{}, fault.New(fault.Unavailable, "genuine.busy", "somebody else is asking this device just now", fmt.Sprintf("ask again in %s", s.cfg.Wait))
	case errors.Is(err, ErrEnough):
		return Asked{}, fault.New(fault.Unavailable, "genuine.enough", fmt.Sprintf("this device was asked %d times within a day", s.cfg.Daily),
			"ask again tomorrow, or ask the device itself: hallmark verify --local")
	case err != nil:
		return Asked{}, err
	}
	s.mu.Lock()
	s.open[id] = q
	s.mu.Unlock()
	return s.shown(ctx, q)
}

// reachable refuses to ask a device that will not answer. When it was last heard of is told in days: strangers need not know more.
func (s *Service) reachable(r Record, now time.Time) error {
	d := r.Device
	if !r.Known || len(d.AttestKey) == 0 {
		return fault.New(fault.Conflict, "genuine.cannot-ask", "this device cannot be asked: no key of it is known that could prove it", "look at its marks and documents instead")
	}
	if !device.Works(d.State) && d.State != device.Maintenance && d.State != device.Suspected {
		return fault.New(fault.Conflict, "genuine.cannot-ask", "this device does not answer in the state it is in", "what is known of it is in the verdict")
	}
	if away := now.Sub(d.LastSeen); d.LastSeen.IsZero() || away >= s.cfg.Away {
		text := "this device was never heard of"
		if !d.LastSeen.IsZero() {
			text = fmt.Sprintf("this device is not reachable: it was last heard of more than %s ago", days(away))
		}
		return fault.New(fault.Conflict, "genuine.unreachable", text, "switch it on and bring it on line, or ask the device itself: hallmark verify --local")
	}
	return nil
}

func days(d time.Duration) string {
	if n := int(d / (24 * time.Hour)); n > 1 {
		return fmt.Sprintf("%d days", n)
	}
	return "a day"
}

// Question shows a question to who knows its ID, which is made of the device's and the nonce.
func (s *Service) Question(ctx context.Context, id, question string) (Asked, error) {
	q, err := s.cfg.Store.Question(ctx, question)
	if errors.Is(err, ErrNotFound) || err == nil && q.Device != id {
		return Asked{}, fault.New(fault.NotFound, "genuine.question", "there is no such question", "questions are forgotten after a day: ask again")
	}
	if err != nil {
		return Asked{}, err
	}
	return s.shown(ctx, q)
}

func (s *Service) shown(ctx context.Context, q Question) (Asked, error) {
	a := Asked{ID: q.ID, Device: q.Device, Standing: Waiting, Expires: q.Expires}
	now := s.cfg.Now()
	switch {
	case !q.Answered.IsZero():
		v, err := s.Of(ctx, q.Device, q.Nonce)
		if err != nil {
			return Asked{}, err
		}
		g := v.Genuine
		g.Proof = &wire.GenuineProof{Key: q.Key, Evidence: q.Evidence, Word: q.Word, At: seconds(q.Answered)}
		if a.Verdict, err = s.sign(g, now); err != nil {
			return Asked{}, err
		}
		a.Standing = Answered
	case !now.Before(q.Expires):
		a.Standing = NoAnswer
	}
	return a, nil
}

// Refresh learns what other nodes were asked; it is called every second or so.
func (s *Service) Refresh(ctx context.Context) error {
	qs, err := s.cfg.Store.OpenQuestions(ctx, s.cfg.Now(), maxOpen)
	if err != nil {
		return err
	}
	open := make(map[string]Question, len(qs))
	for _, q := range qs {
		open[q.Device] = q
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = open
	return nil
}

// again is how long a device that was asked and has not answered is left alone.
const again = 30 * time.Second

// Pending gives the nonce that a device is to attest over now, if somebody waits for it.
func (s *Service) Pending(id string) (nonce [32]byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, ok := s.open[id]
	now := s.cfg.Now()
	if !ok || !now.Before(q.Expires) || now.Sub(s.asked[id]) < again {
		return nonce, false
	}
	if len(s.asked) >= maxOpen {
		clear(s.asked)
	}
	s.asked[id] = now
	return wire.GenuineNonce(q.Nonce), true
}

// Waits reports whether there is a question about a device.
func (s *Service) Waits(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.open[id]
	return ok
}

// Answer takes evidence that was appraised: if it answers a question, it is kept. word is the verifier's verdict on it, key the one that
// signed it (SubjectPublicKeyInfo).
func (s *Service) Answer(ctx context.Context, id string, nonce, envelope []byte, key []byte, word string) error {
	s.mu.Lock()
	q, ok := s.open[id]
	s.mu.Unlock()
	if want := wire.GenuineNonce(q.Nonce); !ok || !bytes.Equal(nonce, want[:]) {
		return nil
	}
	q.Answered, q.Word, q.Evidence, q.Key = s.cfg.Now().UTC(), word, envelope, key
	if err := s.cfg.Store.AnswerQuestion(ctx, q); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	s.mu.Lock()
	delete(s.open, id)
	s.mu.Unlock()
	return nil
}

// NewNonce makes one for an asker who has none.
func NewNonce() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return b
}
