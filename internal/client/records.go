package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/wire"
)

// recordsPart is how many bytes of a record file go into a request, in which they are a third longer.
const recordsPart = 8 << 20

// ImportRecords brings in what a station exported: a file of size bytes, of any length that a station writes. A long one goes in parts, so that
// neither side holds all of it. The last part goes first, because the station's end of the order is there, and it holds for all of them. After an
// error the same file is sent again.
func (c *Client) ImportRecords(ctx context.Context, order string, file io.ReaderAt, size int64) (factory.ImportReport, error) {
	return c.importParts(ctx, order, file, size, recordsPart)
}

func (c *Client) importParts(ctx context.Context, order string, file io.ReaderAt, size int64, limit int) (factory.ImportReport, error) {
	all := factory.ImportReport{Order: order}
	index, err := wire.IndexRecordFile(file, size)
	if err != nil {
		return all, fmt.Errorf("%w: is it a file of `hallmark-station export`, and whole?", err)
	}
	parts := split(index.Batches, limit)
	for i := range parts {
		body, err := part(file, index.Order, parts[(i+len(parts)-1)%len(parts)])
		if err != nil {
			return all, err
		}
		r, err := post[factory.ImportReport](ctx, c.working(), "/orders/"+url.PathEscape(order)+"/records", httpapi.RecordsRequest{File: body})
		if err != nil {
			return all, err
		}
		all.Join(r)
	}
	if len(parts) > 1 && c.replied != nil {
		body, err := json.Marshal(all)
		if err != nil {
			return all, err
		}
		c.replied(body)
	}
	return all, nil
}

// split divides batches into runs of at most limit bytes, or of one batch.
func split(batches []wire.Extent, limit int) (parts [][]wire.Extent) {
	first, size := 0, 0
	for i, b := range batches {
		if i > first && size+b.Size > limit {
			parts = append(parts, batches[first:i])
			first, size = i, 0
		}
		size += b.Size
	}
	return append(parts, batches[first:])
}

// part is a record file of some batches of another.
func part(file io.ReaderAt, order string, batches []wire.Extent) ([]byte, error) {
	var out bytes.Buffer
	w, err := wire.NewRecordFileWriter(&out, order, len(batches))
	if err != nil {
		return nil, err
	}
	for _, b := range batches {
		sealed := make([]byte, b.Size)
		if _, err := io.ReadFull(io.NewSectionReader(file, b.At, int64(b.Size)), sealed); err != nil {
			return nil, err
		}
		if err := w.Add(sealed); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}
