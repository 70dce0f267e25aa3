package legacy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
)

// Log is what a client wrote down of an action, which it sends when that failed.
type Log struct {
	Number   int32     `json:"number" doc:"of the action, as the client knows it"`
	At       time.Time `json:"at" doc:"when it came"`
	Messages []Message `json:"messages"`
}

// Message is a line of it.
type Message struct {
	At    string `json:"at" doc:"by the clock of the client, as it wrote it"`
	Level string `json:"level"`
	Text  string `json:"text"`
}

// Size is what a message counts of MaxLog, bytes: its text, and as much as one takes that says nothing.
func (m Message) Size() int { return messageSize + len(m.At) + len(m.Level) + len(m.Text) }

// Bounds of what is kept.
const (
	MaxLog      = 1 << 20 // of an action, bytes
	MaxLogs     = 3       // of a device: those of its newest actions
	messageSize = 64
	logLife     = 30 * 24 * time.Hour
)

// KeepLog keeps what a client wrote of an action: the last of each, of as many of its newest actions as MaxLogs, for 30 days. It is the client's word.
func (s *Service) KeepLog(ctx context.Context, c Client, number int32, messages []Message) error {
	size := 0
	for i, m := range messages {
		m = Message{clean(m.At), clean(m.Level), clean(m.Text)}
		messages[i], size = m, size+m.Size()
	}
	if size > MaxLog {
		return fault.New(fault.Invalid, "legacy.log", fmt.Sprintf("a log of %d bytes", size), fmt.Sprintf("at most %d", MaxLog))
	}
	now := s.c.Now().UTC()
	return s.c.Store.KeepLog(ctx, c.Device, Log{Number: number, At: now, Messages: messages}, now.Add(-logLife))
}

// clean takes out what would move a terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// Logs gives what a client of a product wrote of its actions, the newest first. Only those of Mender's write.
func (s *Service) Logs(ctx context.Context, caller access.Caller, productID, name string) ([]Log, error) {
	if err := s.c.Guard.Check(ctx, caller, access.DeviceRead, resource(productID)); err != nil {
		return nil, err
	}
	c, err := s.c.Store.Client(ctx, Mender, productID, name)
	if errors.Is(err, ErrNotFound) {
		return nil, unknown(productID, name)
	}
	if err != nil || c.Device == "" {
		return nil, err
	}
	return s.c.Store.Logs(ctx, c.Device)
}
