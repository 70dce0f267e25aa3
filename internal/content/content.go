// Package content answers requests for bytes that are verified while they are read.
//
// Under all stages, beneath the adapters. What it guarantees: damage that stands in the first of the bytes that are asked for is an error, and no answer; damage
// further on cuts the answer off, and is told. It trusts its reader to give no byte that was not verified.
package content

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Serve answers with what f gives, or the ranges of it that were asked for; the headers that w has say what it is. An error before the answer has
// begun is returned, and one after it is given to told. f stays open.
func Serve(w http.ResponseWriter, r *http.Request, f io.ReadSeeker, told func(context.Context, error)) error {
	if v, ok := f.(interface{ Verified() *os.File }); ok && r.TLS == nil {
		if file := v.Verified(); file != nil { // the kernel sends it
			http.ServeContent(w, r, "", time.Time{}, file)
			return nil
		}
	}
	if err := look(f, r.Header.Get("Range")); err != nil {
		w.Header().Del("ETag") // an error is no such bytes
		return err
	}
	in := &failing{ReadSeeker: f}
	http.ServeContent(w, r, "", time.Time{}, in)
	if in.err != nil && r.Context().Err() == nil { // else who asked went away
		told(r.Context(), fmt.Errorf("an answer was cut off: %w", in.err))
	}
	return nil
}

// look reads the first byte that is asked for.
func look(f io.ReadSeeker, ranges string) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return err
	}
	if _, err := f.Seek(begin(ranges, size), io.SeekStart); err != nil {
		return err
	}
	_, err = io.ReadFull(f, make([]byte, 1))
	return err
}

// begin is where the first range begins, of one that says so; else the beginning. What a Range means is decided by net/http: this one only says where to look first.
func begin(ranges string, size int64) int64 {
	first, _, _ := strings.Cut(strings.TrimPrefix(ranges, "bytes="), ",")
	from, to, _ := strings.Cut(strings.TrimSpace(first), "-")
	if at, err := strconv.ParseInt(from, 10, 64); err == nil && at >= 0 && at < size {
		return at
	}
	if last, err := strconv.ParseInt(to, 10, 64); from == "" && err == nil && last > 0 && last <= size {
		return size - last
	}
	return 0
}

// failing keeps what reading failed with.
type failing struct {
	io.ReadSeeker
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.ReadSeeker.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // what an io.Reader ends with
		f.err = err
	}
	return n, err
}
