package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// Window is the part of a list that is wanted: at most Limit rows behind After, 0 for all. Next is set by the list: it goes on
// behind it, and is empty at the end.
type Window struct {
	After string
	Limit int
	Next  string
}

// Within gives a client whose lists are this part of what there is.
func (c *Client) Within(w *Window) *Client {
	other := *c
	other.window = w
	return &other
}

const maxPage = 200 // rows, as the API has it

// list reads a list to its end, or of its window, page by page. Who asked for the answer as the server wrote it is given all its rows in one.
func list[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	quiet := *c
	quiet.replied = nil
	rows, out := []json.RawMessage{}, []T{}
	w := &Window{}
	if c.window != nil {
		w = c.window
	}
	w.Next = ""
	for after := w.After; ; {
		limit := maxPage
		if w.Limit > 0 {
			limit = min(maxPage, w.Limit-len(rows))
		}
		var data json.RawMessage
		if err := quiet.call(ctx, http.MethodGet, path+join+query("limit", strconv.Itoa(limit), "after", after)[1:], nil, &data); err != nil {
			return nil, err
		}
		var page httpapi.Page[json.RawMessage]
		if bytes.HasPrefix(data, []byte("[")) { // a server from before there were pages
			page.Items = nil
			if err := json.Unmarshal(data, &page.Items); err != nil {
				return nil, err
			}
		} else if err := json.Unmarshal(data, &page); err != nil {
			return nil, fmt.Errorf("GET %s: the answer is not what this version of hallmark knows: %w", path, err)
		}
		rows = append(rows, page.Items...)
		if after = page.Next; after == "" {
			break
		}
		if w.Limit > 0 && len(rows) >= w.Limit {
			w.Next = after
			break
		}
	}
	all, err := json.Marshal(rows)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(all, &out); err != nil {
		return nil, fmt.Errorf("GET %s: the answer is not what this version of hallmark knows: %w", path, err)
	}
	if c.replied != nil {
		c.replied(all)
	}
	return out, nil
}
