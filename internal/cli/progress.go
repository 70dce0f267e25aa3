package cli

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// slow is the size from which a person wants to see that something goes on, bytes.
const slow = 4 << 20

// progress tells how far a file has gone, on the error stream, when a person looks at it and it takes a while.
func (a *api) progress(r io.Reader, name string, size int64) io.Reader {
	f, ok := a.s.err.(*os.File)
	if !ok || size < slow || !term.IsTerminal(int(f.Fd())) {
		return r
	}
	return &meter{r: r, w: f, name: oneLine(name), size: size, said: -1}
}

type meter struct {
	r          io.Reader
	w          io.Writer
	name       string
	size, done int64
	said       int64 // percent
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.done += int64(n)
	if percent := m.done * 100 / m.size; percent != m.said {
		m.said = percent
		fmt.Fprintf(m.w, "\r%s  %d%% of %d MB", m.name, percent, m.size>>20)
	}
	if err != nil {
		fmt.Fprintln(m.w)
	}
	return n, err
}
