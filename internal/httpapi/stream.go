package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
)

// Large bodies are not read before the verb has decided that the caller may send them.
const (
	MaxUpload  = release.MaxArtifact // bytes; it goes to the blob store as it comes, and is never in memory whole
	MaxRecords = 64 << 20            // bytes of a record file's request (JSON): some 15000 records; it is in memory while it is imported
)

// stall is how long a sender may send nothing.
const stall = 30 * time.Second

// Streamed is the request's body, unread. As a part of an operation's input it keeps the adapter from reading it.
type Streamed struct {
	ctx  huma.Context
	size int64 // as the sender says; -1: he does not
}

// Resolve implements huma.Resolver. An operation that is not marked has its body read before, whoever sends it.
func (s *Streamed) Resolve(ctx huma.Context) []error {
	if !marked(ctx.Operation(), readsBody) {
		return []error{errors.New("the operation is not registered as one that reads its body itself")}
	}
	r, _ := humago.Unwrap(ctx)
	s.ctx, s.size = ctx, r.ContentLength
	return nil
}

// within gives the body, of which more than limit bytes are an error.
func (s *Streamed) within(limit int64) io.Reader {
	return &bounded{s: s, r: s.ctx.BodyReader(), limit: limit, left: limit}
}

func (s *Streamed) tooLarge(limit int64) error {
	return fault.New(fault.Invalid, "body.size", fmt.Sprintf("the request has more than %d bytes", limit), "send less at a time")
}

// bounded ends with an error behind its limit, and when the sender stalls or goes away.
type bounded struct {
	s           *Streamed
	r           io.Reader
	limit, left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.s.size > b.limit {
		return 0, b.s.tooLarge(b.limit)
	}
	if err := b.s.ctx.SetReadDeadline(time.Now().Add(stall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, b.s.tooLarge(b.limit)
	}
	got := b.limit - b.left
	if errors.Is(err, io.EOF) { // what is done with it may take longer
		if undo := b.s.ctx.SetReadDeadline(time.Time{}); undo != nil && !errors.Is(undo, http.ErrNotSupported) {
			return n, undo
		}
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF), errors.Is(err, io.EOF) && b.s.size > got:
		return n, fault.Newf(fault.Invalid, "body.cut", "the request's body ends after %d bytes: %w", got, errors.Join(err, io.ErrUnexpectedEOF)).With("send it again, whole")
	}
	return n, err
}

// decodeBody reads one JSON document, and nothing else.
func decodeBody[T any](r io.Reader) (v T, err error) {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err = dec.Decode(&v); err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return v, nil
		}
		err = errors.Join(errors.New("something follows the document"), err)
	}
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return v, err
	}
	return v, fault.Newf(fault.Invalid, "body.invalid", "the request's body: %w", err).With("see docs/reference/api.md for what belongs there")
}

// registerStream registers an operation that reads its body itself: its input embeds Streamed. What it reads is described after its registration: a described
// body is one that huma reads. of is the type of a JSON document; nil: bytes.
func registerStream[I, O any](h huma.API, o huma.Operation, contentType string, of reflect.Type, handler func(context.Context, *I) (*O, error)) {
	o = mark(o, readsBody)
	huma.Register(h, o, handler)
	schema := &huma.Schema{Type: "string", Format: "binary"}
	if of != nil {
		schema = h.OpenAPI().Components.Schemas.Schema(of, true, of.Name())
	}
	h.OpenAPI().Paths[o.Path].Post.RequestBody = &huma.RequestBody{
		Required: true, Content: map[string]*huma.MediaType{contentType: {Schema: schema}},
	}
}

// answers says in the description what an operation that writes its answer itself answers with.
func answers(h huma.API, o huma.Operation, of reflect.Type) {
	schema := h.OpenAPI().Components.Schemas.Schema(of, true, of.Name())
	h.OpenAPI().Paths[o.Path].Post.Responses["200"] = &huma.Response{
		Description: "OK", Content: map[string]*huma.MediaType{"application/json": {Schema: schema}},
	}
}
