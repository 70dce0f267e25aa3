package ddi

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/md5"  //nolint:gosec // the protocol's, beside SHA-256: nothing rests on it
	"crypto/sha1" //nolint:gosec // the same
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/content"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/wire"
)

type chunk struct {
	Part      string     `json:"part"`
	Version   string     `json:"version"`
	Name      string     `json:"name"`
	Artifacts []artifact `json:"artifacts"`
}

type artifact struct {
	Filename string            `json:"filename"`
	Hashes   map[string]string `json:"hashes"`
	Size     uint64            `json:"size"`
	Links    map[string]link   `json:"_links"`
}

// deploymentOf writes an offer: a chunk for each component, with one artifact each.
func (h *handler) deploymentOf(ctx context.Context, p peer, o device.Offer) (any, error) {
	chunks := []chunk{}
	for _, c := range o.Release.Components {
		a, err := h.artifactOf(ctx, p, c)
		if err != nil {
			return nil, err
		}
		chunks = append(chunks, chunk{Part: partOf(c), Version: c.Version, Name: c.Name, Artifacts: []artifact{a}})
	}
	how := handling(o)
	d := map[string]any{"download": how, "update": how, "chunks": chunks}
	if o.Hours { // which are now
		d["maintenanceWindow"] = "available"
	}
	return d, nil
}

// handling is what hawkBit calls whether it may be put off.
func handling(o device.Offer) string {
	if o.Manner == wire.Soft {
		return "attempt"
	}
	return "forced"
}

// partOf is what hawkBit calls the kind of a component.
func partOf(c wire.Component) string {
	if c.Kind == wire.KindExec {
		return "bApp"
	}
	return "os"
}

func (h *handler) artifactOf(ctx context.Context, p peer, c wire.Component) (artifact, error) {
	if len(c.Digest) != 32 {
		return artifact{}, fmt.Errorf("component %s has a digest of %d bytes", c.Name, len(c.Digest))
	}
	sums, err := h.sumsOf(ctx, p, [32]byte(c.Digest))
	if err != nil {
		return artifact{}, err
	}
	name := c.Name
	if sums.Suffix != "" && !strings.HasSuffix(name, sums.Suffix) {
		name += sums.Suffix
	}
	where := h.at(p, "softwaremodules", hex.EncodeToString(c.Digest), "artifacts", name)
	scheme, _, _ := strings.Cut(where.Href, ":")
	rel := map[string]string{"https": "", "http": "-http"}[scheme]
	return artifact{
		Filename: name, Size: c.Size, Hashes: map[string]string{"sha256": hex.EncodeToString(c.Digest), "sha1": hex.EncodeToString(sums.SHA1), "md5": hex.EncodeToString(sums.MD5)},
		Links: map[string]link{"download" + rel: where, "md5sum" + rel: {where.Href + md5File}},
	}, nil
}

// sumsOf gives what an artifact is called by beside its digest. It is read once for that, whoever asks.
func (h *handler) sumsOf(ctx context.Context, p peer, digest [32]byte) (legacy.Sums, error) {
	s, ok, err := h.cfg.Sums.Sums(ctx, digest)
	if err != nil || ok {
		return s, err
	}
	v, err, _ := h.summing.Do(string(digest[:]), func() (any, error) {
		ctx := context.WithoutCancel(ctx) // others may wait for it
		f, err := h.cfg.Artifact(ctx, p.caller, digest)
		if err != nil {
			return nil, err
		}
		s, err := sum(f)
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return nil, err
		}
		return s, h.cfg.Sums.KeepSums(ctx, digest, s)
	})
	if err != nil {
		return legacy.Sums{}, err
	}
	return v.(legacy.Sums), nil
}

// sum reads an artifact to its end.
func sum(r io.Reader) (s legacy.Sums, err error) {
	head := make([]byte, 262)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return s, err
	}
	head = head[:n]
	s.Suffix = suffixOf(head)
	fips140.WithoutEnforcement(func() {
		one, five := sha1.New(), md5.New() //nolint:gosec // see above
		_, err = io.Copy(io.MultiWriter(one, five), io.MultiReader(bytes.NewReader(head), r))
		s.SHA1, s.MD5 = one.Sum(nil), five.Sum(nil)
	})
	return s, err
}

// suffixOf says by its first bytes what an artifact is: SWUpdate installs nothing that is not called .swu.
func suffixOf(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte("070701")), bytes.HasPrefix(head, []byte("070702")):
		return ".swu" // cpio
	case bytes.HasPrefix(head, []byte("hsqs")):
		return ".raucb" // squashfs
	case len(head) >= 262 && string(head[257:262]) == "ustar" && bytes.HasPrefix(head, []byte("version\x00")):
		return ".mender"
	}
	return ""
}

const (
	md5File   = ".MD5SUM"
	maxRanges = 64
)

// download serves the bytes of an artifact, whole or in ranges.
func (h *handler) download(w http.ResponseWriter, r *http.Request, p peer) error {
	var digest [32]byte
	if n, err := hex.Decode(digest[:], []byte(clipTo(r.PathValue("digest"), 64))); err != nil || n != len(digest) {
		return fault.New(fault.NotFound, "artifact.unknown", "no such artifact", "fetch what the deployment names")
	}
	f, err := h.cfg.Artifact(r.Context(), p.caller, digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if name, ok := strings.CutSuffix(r.PathValue("file"), md5File); ok {
		s, err := h.sumsOf(r.Context(), p, digest)
		if err != nil {
			return err
		}
		line := hex.EncodeToString(s.MD5) + "  " + name
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Length", strconv.Itoa(len(line)))
		_, _ = io.WriteString(w, line) //nolint:gosec // plain text, and no browser's; an error: it went away
		return nil
	}
	if strings.Count(r.Header.Get("Range"), ",") >= maxRanges {
		r.Header.Del("Range") // RFC 9110 §14.2: a server may ignore it
	}
	w.Header().Set("ETag", `"`+hex.EncodeToString(digest[:])+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "private")
	return content.Serve(w, r, f, func(ctx context.Context, err error) {
		h.cfg.Logger.ErrorContext(ctx, "client of another update system", "path", r.URL.Path, "error", err)
	})
}

func clipTo(s string, n int) string { return s[:min(len(s), n)] }
