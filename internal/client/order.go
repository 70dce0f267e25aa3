package client

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// orderIn is where an order and its file go.
type orderIn struct {
	view *httpapi.OrderView
	file io.Writer
}

// order reads an OrderReply as it comes: its file is as long as the firmware. An answer without its end is an error.
func (c *Client) order(resp *http.Response, to orderIn) error {
	if facts := resp.Header.Get(httpapi.HeaderFacts); facts != "" && c.told != nil {
		c.told(strings.Split(facts, ","))
	}
	d := json.NewDecoder(resp.Body)
	for _, want := range []json.Token{json.Delim('{'), "order"} {
		if got, err := d.Token(); err != nil || got != want {
			return fmt.Errorf("the answer to an order begins with %v: %w", got, errors.Join(err, errNoOrder))
		}
	}
	var order json.RawMessage
	if err := d.Decode(&order); err != nil {
		return brokenError{err}
	}
	if err := json.Unmarshal(order, to.view); err != nil {
		return fmt.Errorf("order: the answer is not what this version of hallmark knows: %w", err)
	}
	if c.replied != nil {
		c.replied(slices.Concat([]byte(`{"order":`), order, []byte("}"))) // the file is where it was asked for
	}
	if got, err := d.Token(); err != nil || got != "file" {
		return fmt.Errorf("order %s came without its file: %w", to.view.ID, errors.Join(err, errNoOrder))
	}
	text := &jsonText{r: io.MultiReader(d.Buffered(), resp.Body)}
	if _, err := io.Copy(to.file, base64.NewDecoder(base64.StdEncoding, text)); err != nil {
		return fmt.Errorf("file of order %s: %w", to.view.ID, err)
	}
	if !text.done {
		return fmt.Errorf("file of order %s: %w", to.view.ID, io.ErrUnexpectedEOF)
	}
	return nil
}

var errNoOrder = errors.New("the answer is not what this version of hallmark knows")

// jsonText gives what stands in a JSON text without escapes, such as base64, from the colon before it on.
type jsonText struct {
	r           io.Reader
	begun, done bool
}

func (t *jsonText) Read(b []byte) (int, error) {
	if t.done || len(b) == 0 {
		return 0, io.EOF
	}
	if !t.begun {
		var one [1]byte
		for one[0] != '"' {
			if _, err := io.ReadFull(t.r, one[:]); err != nil {
				return 0, io.ErrUnexpectedEOF
			}
			if !bytes.ContainsAny(one[:], ": \n\t\r\"") {
				return 0, errNoOrder
			}
		}
		t.begun = true
	}
	n, err := t.r.Read(b)
	if i := bytes.IndexByte(b[:n], '"'); i >= 0 {
		t.done = true
		return i, io.EOF
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
