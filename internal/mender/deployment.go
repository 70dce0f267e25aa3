package mender

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/content"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/wire"
	format "github.com/hallmark-iot/hallmark/wire/mender"
)

// next takes what a client says that it runs, and says what it is to install: nothing (204), or one artifact.
func (h *handler) next(w http.ResponseWriter, r *http.Request, p peer) error {
	name := r.URL.Query().Get("artifact_name")
	if r.Method == http.MethodPost {
		data, err := body(w, r)
		if err != nil {
			return err
		}
		if name, err = decodeProvides(data); err != nil {
			return malformed("deployments/next", err)
		}
	}
	o, err := h.cfg.Offers.Offer(r.Context(), p.caller, p.Device)
	if err != nil {
		return err
	}
	told, err := h.runs(r.Context(), p, name, o)
	if err != nil {
		return err
	}
	if left := o.Number != 0 && o.Cancel; left { // a client asks when it is at nothing: it has left off
		err = h.cfg.Offers.Answer(r.Context(), p.caller, p.Device, device.Answer{Number: o.Number, Said: device.GaveUp, Text: "it asked for something else"})
		told = true
	}
	if err == nil && told { // what it is offered may be another thing now
		o, err = h.cfg.Offers.Offer(r.Context(), p.caller, p.Device)
	}
	if err != nil {
		return err
	}
	if o.Number == 0 || o.Cancel || o.Shut || o.Manner == wire.Consent { // nobody there would be asked
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return h.deployment(w, r, p, o)
}

// maxHeads is how many artifacts are looked at in one call for what they are called.
const maxHeads = 16

// severalVersions is what a client is taken to run whose artifact is called like those of several versions.
const severalVersions = "several have its artifact's name"

// runs takes that a client runs the artifact of that name, and reports whether something was told by it, which is not so when it has said so before and nobody waits to hear it again. The
// release with that artifact is what it is taken to run, if there is but one.
func (h *handler) runs(ctx context.Context, p peer, name string, o device.Offer) (told bool, err error) {
	if name == "" || len(name) > format.MaxName {
		return false, malformed("deployments/next", fmt.Errorf("an artifact_name of %d bytes: want 1 to %d", len(name), format.MaxName))
	}
	versions, err := h.cfg.Heads.Named(ctx, p.Product, name)
	if err != nil {
		return false, err
	}
	if !slices.Contains(versions, o.Running) { // it may be of one that nobody was offered yet
		some, err := h.cfg.Heads.Headless(ctx, p.Product, maxHeads)
		if err != nil {
			return false, err
		}
		for _, digest := range some {
			if _, err := h.head(ctx, p, digest); err != nil {
				return false, err
			}
		}
		if len(some) > 0 {
			if versions, err = h.cfg.Heads.Named(ctx, p.Product, name); err != nil {
				return false, err
			}
		}
	}
	version := name
	switch len(versions) {
	case 0:
	case 1:
		version = versions[0]
	default: // nobody can tell which: it is shown, and is no version, so that nothing is taken to be newer
		version = severalVersions
	}
	if version == o.Running && !o.Unsure {
		return false, nil
	}
	return true, h.cfg.Offers.Runs(ctx, p.caller, p.Device, version)
}

// head gives what an artifact is called; without a name, it is none of Mender's. It is read once.
func (h *handler) head(ctx context.Context, p peer, digest [32]byte) (format.Head, error) {
	kept, ok, err := h.cfg.Heads.Head(ctx, digest)
	if err != nil || ok {
		return kept, err
	}
	f, err := h.cfg.Artifact(ctx, p.caller, digest)
	if err != nil {
		return format.Head{}, err
	}
	defer f.Close()
	begin, err := io.ReadAll(io.LimitReader(f, maxHead)) // that it cannot be read does not make it something else
	if err != nil {
		return format.Head{}, err
	}
	head, err := format.ReadHead(bytes.NewReader(begin))
	if err != nil {
		head = format.Head{}
	}
	return head, h.cfg.Heads.KeepHead(ctx, digest, head)
}

// maxHead bounds what is read of an artifact for its head, bytes.
const maxHead = 256 << 10

// linkLife is how long an artifact is fetched by one address.
const linkLife = 24 * time.Hour

// deployment writes an offer: the one artifact of Mender's that the release has. A release that has none, or several, has failed on such a client before it begins.
func (h *handler) deployment(w http.ResponseWriter, r *http.Request, p peer, o device.Offer) error {
	var head format.Head
	var digest [32]byte
	found := 0
	for _, c := range o.Release.Components {
		d := [32]byte(c.Digest)
		a, err := h.head(r.Context(), p, d)
		if err != nil {
			return err
		}
		if a.Name != "" {
			head, digest, found = a, d, found+1
		}
	}
	if found != 1 {
		text := fmt.Sprintf("release %s has %d artifacts of Mender's, and such a client installs one", o.Release.Version, found)
		if err := h.cfg.Offers.Answer(r.Context(), p.caller, p.Device, device.Answer{Number: o.Number, Said: device.Failing, Text: text}); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	until := h.cfg.Now().Add(linkLife).UTC().Truncate(time.Second)
	where, err := h.link(link{Product: p.Product, Name: p.Name, Key: p.Key, Digest: digest[:], Until: until.Unix()})
	if err != nil {
		return err
	}
	type source struct {
		URI    string `json:"uri"`
		Expire string `json:"expire"`
	}
	type artifact struct {
		Name   string   `json:"artifact_name"`
		Types  []string `json:"device_types_compatible"`
		Source source   `json:"source"`
	}
	return send(w, http.StatusOK, struct {
		ID       string   `json:"id"`
		Artifact artifact `json:"artifact"`
	}{idOf(o.Number), artifact{head.Name, head.DeviceTypes, source{where + "/" + url.PathEscape(head.Name) + ".mender", until.Format(time.RFC3339)}}})
}

// link is who may fetch what by an address.
type link struct {
	Product string `json:"p"`
	Name    string `json:"n"`
	Key     []byte `json:"k"` // by which the client was let in: who is let in by another asks again
	Digest  []byte `json:"d"`
	Until   int64  `json:"u"` // seconds since 1970
}

// linkLabel is under what links are sealed.
const linkLabel = "mender artifact"

func (h *handler) link(l link) (string, error) {
	data, err := json.Marshal(l)
	if err != nil {
		return "", err
	}
	sealed, err := h.cfg.Vault.Seal(linkLabel, data)
	return h.cfg.Base + Prefix + "v1/deployments/download/" + base64.RawURLEncoding.EncodeToString(sealed), err
}

var errLink = fault.New(fault.Denied, "mender.link", "this address counts no more, or never did", "ask for the deployment again")

func (h *handler) openLink(text string) (l link, err error) {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return l, errLink
	}
	data, err := h.cfg.Vault.Open(linkLabel, sealed)
	if err != nil {
		return l, errLink
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, err
	}
	if len(l.Digest) != 32 || h.cfg.Now().Unix() >= l.Until {
		return l, errLink
	}
	return l, nil
}

// maxRanges are as many parts of an artifact as one request is answered with.
const maxRanges = 64

// download serves the bytes of an artifact, whole or in ranges, while its client is let in.
func (h *handler) download(w http.ResponseWriter, r *http.Request) error {
	l, err := h.openLink(r.PathValue("link"))
	if err != nil {
		return err
	}
	c, err := h.cfg.Clients.Admitted(r.Context(), legacy.Mender, l.Product, l.Name)
	if err != nil {
		return err
	}
	if !bytes.Equal(c.Key, l.Key) {
		return errLink
	}
	f, err := h.cfg.Artifact(r.Context(), peerOf(c).caller, [32]byte(l.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	if strings.Count(r.Header.Get("Range"), ",") >= maxRanges {
		r.Header.Del("Range") // RFC 9110 §14.2: a server may ignore it
	}
	w.Header().Set("ETag", `"`+hex.EncodeToString(l.Digest)+`"`)
	w.Header().Set("Content-Type", "application/vnd.mender-artifact")
	w.Header().Set("Cache-Control", "private")
	return content.Serve(w, r, f, func(ctx context.Context, err error) {
		h.cfg.Logger.ErrorContext(ctx, "client of Mender's", "path", r.URL.Path, "error", err)
	})
}
