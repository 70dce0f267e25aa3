package server

import (
	"io"
	"net/http"
	"strconv"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/ledger"
)

// receipts has each answer name the facts that its request wrote.
func receipts(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, collected := ledger.WithReceipts(r.Context())
		h.ServeHTTP(&receiptWriter{ResponseWriter: w, collected: collected}, r.WithContext(ctx))
	})
}

type receiptWriter struct {
	http.ResponseWriter
	collected *ledger.Receipts
	begun     bool
}

func (w *receiptWriter) WriteHeader(status int) {
	if !w.begun && status >= 200 { // an informational header is not the answer
		w.begun = true
		w.name()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *receiptWriter) Write(b []byte) (int, error) {
	if !w.begun {
		w.begun = true
		w.name()
	}
	return w.ResponseWriter.Write(b)
}

// ReadFrom lets a file go to the connection in the connection's own way.
func (w *receiptWriter) ReadFrom(r io.Reader) (int64, error) {
	if !w.begun {
		w.begun = true
		w.name()
	}
	return io.Copy(w.ResponseWriter, r)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *receiptWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *receiptWriter) name() {
	names, count := w.collected.Names(httpapi.MaxNamedFacts)
	if count == 0 {
		return // also when the answer is one that was given before: it names its own
	}
	w.Header().Set(httpapi.HeaderFacts, names)
	if count > httpapi.MaxNamedFacts {
		w.Header().Set(httpapi.HeaderFactCount, strconv.Itoa(count))
	}
}
