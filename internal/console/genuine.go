package console

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/genuine"
	"github.com/hallmark-iot/hallmark/internal/label"
	"github.com/hallmark-iot/hallmark/wire"
)

// Genuineness answers strangers; package genuine is it.
type Genuineness interface {
	Of(ctx context.Context, id string, nonce []byte) (genuine.Verdict, error)
	Ask(ctx context.Context, from, id string, nonce []byte) (genuine.Asked, error)
	Question(ctx context.Context, id, question string) (genuine.Asked, error)
}

// genuineView is what the page for strangers shows.
type genuineView struct {
	ID      string // as it was asked for
	Verdict *genuine.Verdict
	Asked   *genuine.Asked // a question to the device itself
	Problem string
	Root    string // fingerprint of the maker's root
}

// headline is the word that matters most.
func (g genuineView) headline() genuine.Word { return genuine.Word(g.Verdict.Headline) }

// title is what the browser's tab says: the answer, when there is one.
func (g genuineView) title() string {
	if g.Verdict == nil {
		return "Is it genuine?"
	}
	return g.headline().Title() + ": device " + short(g.Verdict.Device)
}

// tone is that of the worst that is said: nothing beside a good headline that warns is to be overlooked.
func (g genuineView) tone() string {
	worst := g.headline().Tone()
	for _, s := range g.Verdict.Says {
		switch tone := genuine.Word(s.Word).Tone(); {
		case tone == "bad", tone == "warn" && worst != "bad":
			worst = tone
		}
	}
	return worst
}

// asked is what stands in the form: what was not found, to be mended; nothing once there is an answer.
func (g genuineView) asked() string {
	if g.Verdict != nil {
		return ""
	}
	return g.ID
}

// rest are the statements beside the headline and what it says anyway.
func (g genuineView) rest() []wire.GenuineSaid {
	var out []wire.GenuineSaid
	for _, s := range g.Verdict.Says {
		if s.Word != g.Verdict.Headline && s.Word != string(genuine.Genuine) {
			out = append(out, s)
		}
	}
	return out
}

func (g genuineView) said(word genuine.Word) wire.GenuineSaid {
	for _, s := range g.Verdict.Says {
		if s.Word == string(word) {
			return s
		}
	}
	return wire.GenuineSaid{}
}

// file is where the signed verdict is, with the device's answer when there is one.
func (g genuineView) file() string {
	f := "/g/" + g.Verdict.Device + "/verdict"
	if g.Asked != nil && g.Asked.Standing == genuine.Answered {
		f += "?question=" + g.Asked.ID
	}
	return f
}

// inFours writes an ID as labels do, so that it can be compared.
func inFours(id string) string {
	var b strings.Builder
	for i, c := range id {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// besideTitle is a word as the name of a line beside the headline.
func besideTitle(w genuine.Word) string {
	if w == genuine.Simulated {
		return "A simulation"
	}
	return w.Title()
}

func momentOf(seconds uint64) string {
	return time.Unix(int64(min(seconds, 1<<40)), 0).UTC().Format("2 January 2006, 15:04 UTC")
}

func dateOf(seconds uint64) string {
	return time.Unix(int64(min(seconds, 1<<40)), 0).UTC().Format("2 January 2006")
}

func monthOf(seconds uint64) string {
	return time.Unix(int64(min(seconds, 1<<40)), 0).UTC().Format("January 2006")
}

// softwareWords says what the verifier found of the software that answered.
func softwareWords(word string) string {
	if wire.Acceptable(word) {
		return "It runs software that its maker approved."
	}
	return "What it runs is not what its maker approved. Do not trust it before you have asked the maker."
}

// stranger lets somebody ask who is nobody; false: too often.
func (h *handler) stranger(w http.ResponseWriter, r *http.Request, id string) bool {
	if h.cfg.Curb == nil || h.cfg.Curb(r.RemoteAddr) {
		return true
	}
	w.Header().Set("Retry-After", "10")
	h.render(w, r, http.StatusTooManyRequests, genuinePage(view{}, genuineView{ID: clip(id, 64), Problem: "Too many questions just now. Try again in a moment."}))
	return false
}

// genuineForm takes an ID as people write it.
func (h *handler) genuineForm(w http.ResponseWriter, r *http.Request) {
	asked := strings.TrimSpace(r.URL.Query().Get("id"))
	id := strings.ToLower(strings.NewReplacer(" ", "", "-", "", ":", "").Replace(clip(asked, 64)))
	switch {
	case asked == "":
		h.render(w, r, http.StatusOK, genuinePage(view{}, genuineView{}))
	case !isDevice(id):
		h.render(w, r, http.StatusOK, genuinePage(view{}, genuineView{ID: clip(asked, 64), Problem: "That is no device ID: it has 32 digits and letters from a to f."}))
	default:
		http.Redirect(w, r, "/g/"+id, http.StatusSeeOther) //nolint:gosec // the ID is 32 hex digits: isDevice
	}
}

// genuine answers anybody what the maker knows of a device.
func (h *handler) genuine(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("device")
	if !isDevice(id) {
		h.render(w, r, http.StatusNotFound, genuinePage(view{}, genuineView{ID: clip(id, 64), Problem: "That is no device ID: it has 32 digits and letters from a to f."}))
		return
	}
	if !h.stranger(w, r, id) {
		return
	}
	g := genuineView{ID: id, Root: h.cfg.Root}
	v, err := h.cfg.Genuine.Of(r.Context(), id, nil)
	if err != nil {
		h.strangersProblem(w, r, g, err)
		return
	}
	g.Verdict = &v
	if q := r.URL.Query().Get("question"); q != "" {
		asked, err := h.cfg.Genuine.Question(r.Context(), id, clip(q, 64))
		if err != nil {
			h.strangersProblem(w, r, g, err)
			return
		}
		if g.Asked = &asked; asked.Standing == genuine.Waiting {
			w.Header().Set("Refresh", "5")
		}
	}
	h.render(w, r, http.StatusOK, genuinePage(view{}, g))
}

// askDevice has the device itself asked.
func (h *handler) askDevice(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("device")
	if !isDevice(id) || !h.stranger(w, r, id) {
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	g := genuineView{ID: id, Root: h.cfg.Root}
	nonce, err := hex.DecodeString(r.PostFormValue("nonce"))
	if err != nil || len(nonce) == 0 {
		nonce = genuine.NewNonce()
	}
	asked, err := h.cfg.Genuine.Ask(r.Context(), r.RemoteAddr, id, nonce)
	if err != nil {
		if v, verr := h.cfg.Genuine.Of(r.Context(), id, nil); verr == nil {
			g.Verdict = &v
		}
		h.strangersProblem(w, r, g, err)
		return
	}
	http.Redirect(w, r, "/g/"+id+"?question="+asked.ID, http.StatusSeeOther) //nolint:gosec // the ID is 32 hex digits, the question ours
}

// verdictFile gives the signed verdict.
func (h *handler) verdictFile(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("device")
	if !isDevice(id) || !h.stranger(w, r, id) {
		return
	}
	signed, err := h.signedVerdict(r, id)
	if err != nil {
		h.strangersProblem(w, r, genuineView{ID: id}, err)
		return
	}
	w.Header().Set("Content-Type", "application/cose")
	w.Header().Set("Content-Disposition", `attachment; filename="`+id+`.verdict"`)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(signed) //nolint:gosec // COSE, as a file; an error: who asked has gone
}

// code draws the QR code of a device's label. It is made of the ID alone, whether or not there is such a device.
func (h *handler) code(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("device")
	if !isDevice(id) {
		http.NotFound(w, r)
		return
	}
	u, err := label.URL(h.cfg.Site, id)
	if err == nil {
		var svg []byte
		if svg, err = label.SVG(u); err == nil {
			w.Header().Set("Content-Type", "image/svg+xml")
			_, _ = w.Write(svg) //nolint:gosec // drawn from 32 hex digits; an error: who asked has gone
			return
		}
	}
	h.cfg.Log.ErrorContext(r.Context(), "console", "path", r.URL.Path, "error", err)
	http.Error(w, "it cannot be drawn just now", http.StatusServiceUnavailable)
}

func (h *handler) signedVerdict(r *http.Request, id string) ([]byte, error) {
	q := r.URL.Query().Get("question")
	if q == "" {
		v, err := h.cfg.Genuine.Of(r.Context(), id, nil)
		return v.Signed, err
	}
	a, err := h.cfg.Genuine.Question(r.Context(), id, clip(q, 64))
	if err == nil && a.Standing != genuine.Answered {
		err = fault.New(fault.NotFound, "genuine.question", "the device has not answered", "wait for it, or take the verdict without its answer")
	}
	return a.Verdict.Signed, err
}

// strangersProblem says to a stranger what is wrong, and no more.
func (h *handler) strangersProblem(w http.ResponseWriter, r *http.Request, g genuineView, err error) {
	status := http.StatusServiceUnavailable
	g.Problem = "It cannot be looked up just now. Try again later."
	if k := fault.KindOf(err); k != fault.Internal {
		status, g.Problem = k.Status(), sentence(err.Error())
	} else {
		h.cfg.Log.ErrorContext(r.Context(), "console", "path", r.URL.Path, "error", err)
	}
	h.render(w, r, status, genuinePage(view{}, g))
}

// sentence begins with a capital and ends with a stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}
