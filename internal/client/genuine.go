package client

import (
	"context"
	"encoding/hex"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// Verdict gives what the maker says of a device; nonce may be left out. It needs no token.
func (c *Client) Verdict(ctx context.Context, device string, nonce []byte) (httpapi.VerdictView, error) {
	return get[httpapi.VerdictView](ctx, c, "/genuine/"+device+query("nonce", hex.EncodeToString(nonce)))
}

// AskDevice has the device itself prove that it is the one, over nonce. It needs no token.
func (c *Client) AskDevice(ctx context.Context, device string, nonce []byte) (httpapi.QuestionView, error) {
	return post[httpapi.QuestionView](ctx, c, "/genuine/"+device+"/questions", httpapi.QuestionRequest{Nonce: nonce})
}

// Question gives what has become of a question to a device. It needs no token.
func (c *Client) Question(ctx context.Context, device, question string) (httpapi.QuestionView, error) {
	return get[httpapi.QuestionView](ctx, c, "/genuine/"+device+"/questions/"+question)
}
