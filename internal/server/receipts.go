package server

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/hallmark-iot/hallmark/ledger"
)

// The headers of an answer that tell which facts became durable before it was given. A bulk operation names the first ones and
// counts all.
const (
	headerFacts     = "Hallmark-Facts"      // log/uid, comma-separated
	headerFactCount = "Hallmark-Fact-Count" // present when there are more than the header names
	maxNamedFacts   = 32
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

// Unwrap lets http.ResponseController reach the connection.
func (w *receiptWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *receiptWriter) name() {
	all := w.collected.All()
	if len(all) == 0 {
		return
	}
	if len(all) > maxNamedFacts {
		w.Header().Set(headerFactCount, strconv.Itoa(len(all)))
		all = all[:maxNamedFacts]
	}
	names := make([]string, len(all))
	for i, r := range all {
		names[i] = r.String()
	}
	w.Header().Set(headerFacts, strings.Join(names, ","))
}
