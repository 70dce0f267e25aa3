package httpapi

import (
	"context"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/genuine"
)

// VerdictMedia is the media type of a signed verdict of genuineness.
const VerdictMedia = "application/cose"

// Statement is one thing that is said of a device.
type Statement struct {
	Word  genuine.Word `json:"word"`
	Title string       `json:"title" doc:"for people"`
	Since time.Time    `json:"since,omitzero" doc:"a day"`
	Text  string       `json:"text,omitempty" doc:"the maker's public words"`
}

// DeviceAnswer is what the device itself answered to the asker's nonce.
type DeviceAnswer struct {
	At   time.Time `json:"at"`
	Word string    `json:"word" doc:"the verifier's verdict on what it runs: affirming, warning, contraindicated or none"`
}

// VerdictView is a verdict of genuineness, readable and signed.
type VerdictView struct {
	Device       string        `json:"device"`
	Maker        string        `json:"maker"`
	Product      string        `json:"product,omitempty"`
	Headline     genuine.Word  `json:"headline" doc:"the statement that matters most; unknown is not good"`
	Title        string        `json:"title" doc:"the headline for people"`
	Advice       string        `json:"advice" doc:"what a buyer should do"`
	Statements   []Statement   `json:"statements"`
	Made         time.Time     `json:"made,omitzero" doc:"the month"`
	EndOfSupport time.Time     `json:"end_of_support,omitzero" doc:"of the product"`
	Issued       time.Time     `json:"issued"`
	Expires      time.Time     `json:"expires" doc:"ask again after that"`
	Answer       *DeviceAnswer `json:"answer,omitempty" doc:"of the device itself"`
	Signed       []byte        `json:"signed" doc:"COSE_Sign1 with its certificates, base64: it has all of the above, and the places of the facts it rests on"`
}

// QuestionRequest asks a device to prove itself.
type QuestionRequest struct {
	Nonce []byte `json:"nonce" minLength:"22" maxLength:"88" doc:"16 to 64 random bytes, base64; the device attests over a hash of them"`
}

// QuestionView is a question to a device, and its answer once there is one.
type QuestionView struct {
	ID       string           `json:"id"`
	Device   string           `json:"device"`
	Standing genuine.Standing `json:"standing" doc:"waiting, answered or no-answer"`
	Expires  time.Time        `json:"expires"`
	Verdict  *VerdictView     `json:"verdict,omitempty" doc:"with the answer"`
}

func verdictView(v genuine.Verdict) VerdictView {
	w := genuine.Word(v.Headline)
	out := VerdictView{
		Device: v.Device, Maker: v.Maker, Product: v.Product, Headline: w, Title: w.Title(), Advice: w.Advice(), Statements: []Statement{},
		Made: stamp(v.Made), EndOfSupport: stamp(v.Support), Issued: stamp(v.Issued), Expires: stamp(v.Expires), Signed: v.Signed,
	}
	for _, s := range v.Says {
		w := genuine.Word(s.Word)
		out.Statements = append(out.Statements, Statement{Word: w, Title: w.Title(), Since: stamp(s.Since), Text: s.Text})
	}
	if v.Proof != nil {
		out.Answer = &DeviceAnswer{At: stamp(v.Proof.At), Word: v.Proof.Word}
	}
	return out
}

func stamp(seconds uint64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(min(seconds, 1<<40)), 0).UTC()
}

func questionView(a genuine.Asked) QuestionView {
	q := QuestionView{ID: a.ID, Device: a.Device, Standing: a.Standing, Expires: a.Expires}
	if a.Standing == genuine.Answered {
		v := verdictView(a.Verdict)
		q.Verdict = &v
	}
	return q
}

// strangerOp is an operation for anybody.
func strangerOp(o huma.Operation) huma.Operation {
	o.Security = []map[string][]string{}
	return mark(o, forAnybody)
}

// AskedOf is the device that a stranger asks about. It is exported because embedded parameters are not seen otherwise.
type AskedOf struct {
	ID    string `path:"id" pattern:"^[0-9a-f]{32}$" doc:"the device's ID: 32 digits and letters from a to f"`
	Nonce string `query:"nonce" pattern:"^([0-9a-f]{32,128})?$" doc:"16 to 64 random bytes, hex: the verdict carries them, so that it was made for you"`
}

func (in *AskedOf) nonce() ([]byte, error) {
	b, err := hex.DecodeString(in.Nonce)
	if err != nil {
		return nil, fault.New(fault.Invalid, "genuine.nonce", "a nonce is given in hex", "give 32 to 128 hex digits")
	}
	return b, nil
}

// registerGenuine has what anybody may ask.
func (a *api) registerGenuine(h huma.API) {
	huma.Register(h, strangerOp(op("get-verdict", http.MethodGet, "/genuine/{id}", "What its maker says of a device, to whoever asks")),
		func(ctx context.Context, in *AskedOf) (*body[VerdictView], error) {
			nonce, err := in.nonce()
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			v, err := a.Genuine.Of(ctx, in.ID, nonce)
			return reply(a, ctx, verdictView(v), err)
		})
	huma.Register(h, strangerOp(fileOp(op("get-signed-verdict", http.MethodGet, "/genuine/{id}/verdict", "The same as a file, to be checked offline"),
		VerdictMedia, "The signed verdict, COSE_Sign1")),
		func(ctx context.Context, in *struct {
			AskedOf
			Question string `query:"question" pattern:"^([0-9a-f]{32})?$" doc:"a question that the device has answered: with its answer"`
		},
		) (*download, error) {
			data, err := a.signedVerdict(ctx, &in.AskedOf, in.Question)
			return file(a, ctx, VerdictMedia, in.ID+".verdict", data, err)
		})
	huma.Register(h, strangerOp(op("ask-device", http.MethodPost, "/genuine/{id}/questions", "Have the device itself prove that it is the one")),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" pattern:"^[0-9a-f]{32}$"`
			Body QuestionRequest
		},
		) (*body[QuestionView], error) {
			q, err := a.Genuine.Ask(ctx, strangerOf(ctx), in.ID, in.Body.Nonce)
			return reply(a, ctx, questionView(q), err)
		})
	huma.Register(h, strangerOp(op("get-question", http.MethodGet, "/genuine/{id}/questions/{question}", "What has become of a question to a device")),
		func(ctx context.Context, in *struct {
			ID       string `path:"id" pattern:"^[0-9a-f]{32}$"`
			Question string `path:"question" pattern:"^[0-9a-f]{32}$"`
		},
		) (*body[QuestionView], error) {
			q, err := a.Genuine.Question(ctx, in.ID, in.Question)
			return reply(a, ctx, questionView(q), err)
		})
}

func (a *api) signedVerdict(ctx context.Context, in *AskedOf, question string) ([]byte, error) {
	if question == "" {
		nonce, err := in.nonce()
		if err != nil {
			return nil, err
		}
		v, err := a.Genuine.Of(ctx, in.ID, nonce)
		return v.Signed, err
	}
	q, err := a.Genuine.Question(ctx, in.ID, question)
	if err == nil && q.Standing != genuine.Answered {
		err = fault.New(fault.NotFound, "genuine.question", "the device has not answered", "wait for it, or take the verdict without its answer")
	}
	return q.Verdict.Signed, err
}

// serveAnybody answers a stranger.
func (f *front) serveAnybody(w http.ResponseWriter, r *http.Request) {
	if f.Curb != nil && !f.Curb(r.RemoteAddr) {
		w.Header().Set("Retry-After", "10")
		f.write(w, r, &huma.ErrorModel{
			Status: http.StatusTooManyRequests, Type: "urn:hallmark:fault:genuine.too-often", Title: "too often", Detail: "too many questions just now: try again in a moment",
		})
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	}
	f.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), strangerKey{}, r.RemoteAddr)))
}

type strangerKey struct{}

// strangerOf gives the remote address of who asks without saying who they are.
func strangerOf(ctx context.Context) string {
	from, _ := ctx.Value(strangerKey{}).(string)
	return from
}
