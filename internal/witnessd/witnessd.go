// Package witnessd serves a witness over HTTP (c2sp.org/tlog-witness).
//
// Under all stages: the edge of `hallmark witness serve`. Bytes in, bytes out; what is signed is decided in ledger/witness. Nobody
// is asked who they are, since the signature on the checkpoint says it, and nothing that a stranger sends is written or locked.
package witnessd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

// Config is what a handler needs.
type Config struct {
	Witness *witness.Witness
	Origins []string // of the logs it knows
	Log     *slog.Logger
}

// Handler serves POST /add-checkpoint, GET /<hash of an origin>/checkpoint, and GET /healthz.
func Handler(c Config) http.Handler {
	h := &handler{cfg: c, origins: map[string]string{}}
	for _, o := range c.Origins {
		sum := sha256.Sum256([]byte(o))
		h.origins[hex.EncodeToString(sum[:])] = o
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", h.add)
	mux.HandleFunc("GET /{origin}/checkpoint", h.latest)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{\"ok\":true}\n") // who asked has gone
	})
	return mux
}

type handler struct {
	cfg     Config
	origins map[string]string // by the hex of the SHA-256

	mu   sync.Mutex
	told map[string]bool // guarded by mu: checkpoints that were told of as evidence
}

// maxTold bounds how many are remembered.
const maxTold = 1024

// first says whether a checkpoint has not been told of yet. Anybody can send a log's checkpoint again and again with a wrong proof, and
// with signature lines of his own; what the log signed is the body.
func (h *handler) first(note []byte) bool {
	body, _, _ := strings.Cut(string(note), "\n\n")
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.told[body] {
		return false
	}
	if h.told == nil || len(h.told) >= maxTold {
		h.told = map[string]bool{}
	}
	h.told[body] = true
	return true
}

func (h *handler) add(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, witness.MaxRequest))
	if err != nil {
		http.Error(w, "the request is too large, or broke off", http.StatusBadRequest)
		return
	}
	req, err := witness.ParseRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	lines, err := h.cfg.Witness.Cosign(r.Context(), req.Old, req.Proof, req.Note)
	if err != nil {
		h.refuse(w, r, req, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(lines) // who asked has gone, and asks again
}

// refuse gives an error the status that the protocol has for it.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, req witness.Request, err error) {
	status := 0
	var old *ledger.OldSizeError
	switch {
	case errors.As(err, &old):
		w.Header().Set("Content-Type", witness.SizeType)
		w.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintf(w, "%d\n", old.Size) // who asked has gone
		return
	case errors.Is(err, witness.ErrMalformed):
		status = http.StatusBadRequest
	case errors.Is(err, witness.ErrLogSignature):
		status = http.StatusForbidden
	case errors.Is(err, witness.ErrUnknownLog):
		status = http.StatusNotFound
	case errors.Is(err, witness.ErrTooOften):
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", "1")
	case errors.Is(err, witness.ErrInconsistent):
		status = http.StatusUnprocessableEntity
		// Unless the proof is to blame, the log signed what cannot be: this is the evidence.
		if h.first(req.Note) {
			h.cfg.Log.WarnContext(r.Context(), "a log asked to sign what does not extend what was signed", "error", err, "old", req.Old, "checkpoint", string(req.Note))
		}
	default:
		h.cfg.Log.ErrorContext(r.Context(), "not signed", "error", err)
		http.Error(w, "the witness cannot sign now; its operator is told why", http.StatusInternalServerError)
		return
	}
	http.Error(w, err.Error(), status)
}

func (h *handler) latest(w http.ResponseWriter, r *http.Request) {
	origin, known := h.origins[r.PathValue("origin")]
	var note []byte
	if known {
		note = h.cfg.Witness.Latest(origin)
	}
	if note == nil {
		http.Error(w, "nothing was cosigned of this log", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	_, _ = w.Write(note) // who asked has gone
}
