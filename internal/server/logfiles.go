package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
)

// logFiles serves the logs' public files to anybody (c2sp.org/tlog-tiles), programs in browsers too. Nothing else of the place they are
// in can be reached, and nothing is listed.
func logFiles(logs map[string]ledger.Exporter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("X-Content-Type-Options", "nosniff")
		name, path, _ := strings.Cut(r.URL.Path, "/")
		mediaType, cache, ok := ledger.PublicFile(path)
		files := logs[name]
		if files == nil || !ok || r.URL.RawPath != "" {
			notThere(w)
			return
		}
		switch r.Method {
		case http.MethodGet, http.MethodHead:
		case http.MethodOptions:
			h.Set("Access-Control-Allow-Methods", "GET, HEAD")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		default:
			h.Set("Allow", "GET, HEAD, OPTIONS")
			http.Error(w, "the log's files are read only", http.StatusMethodNotAllowed)
			return
		}
		data, err := files.Get(r.Context(), path)
		if err != nil {
			h.Set("Cache-Control", "no-store")
			http.Error(w, "the log's files cannot be read now", http.StatusServiceUnavailable)
			return
		}
		if data == nil {
			notThere(w)
			return
		}
		sum := sha256.Sum256(data)
		h.Set("Content-Type", mediaType)
		h.Set("Cache-Control", cache)
		h.Set("ETag", `"`+base64.RawURLEncoding.EncodeToString(sum[:16])+`"`)
		h.Set("Access-Control-Expose-Headers", "ETag")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
}

// notThere answers for a file that may be there in a moment: nobody should remember that it was not.
func notThere(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, "no such file of a log", http.StatusNotFound)
}
