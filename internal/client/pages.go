package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// list reads a list to its end, page by page. Who asked for the answer as the server wrote it is given all its rows in one.
func list[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	quiet := *c
	quiet.replied = nil
	rows, out := []json.RawMessage{}, []T{}
	for after := ""; ; {
		var data json.RawMessage
		if err := quiet.call(ctx, http.MethodGet, path+join+query("limit", "200", "after", after)[1:], "", nil, &data); err != nil {
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
