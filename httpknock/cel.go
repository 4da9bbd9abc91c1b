// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/parser"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// CELLibrary makes the functions knocked and knocked_by of expressions.
func (*Knocked) CELLibrary(ctx caddy.Context) (cel.Library, error) {
	var env []cel.EnvOption
	var program []cel.ProgramOption
	for _, f := range []struct {
		name string
		make func(names []string) *Knocked
		any  bool // without names, any will do
	}{
		{"knocked", func(names []string) *Knocked { return &Knocked{knockapp.Knocked{Services: names}} }, true},
		{"knocked_by", func(names []string) *Knocked { return &Knocked{knockapp.Knocked{Clients: names}} }, false},
	} {
		internal := f.name + "_request_list"
		build := func(data ref.Val) (caddyhttp.RequestMatcherWithError, error) {
			names, err := data.ConvertToNative(reflect.TypeFor[[]string]())
			if err != nil {
				return nil, err
			}
			m := f.make(names.([]string))
			return m, m.Provision(ctx)
		}
		env = append(env,
			cel.Macros(parser.NewGlobalVarArgMacro(f.name, expandNames(internal, f.any))),
			cel.Function(internal,
				cel.Overload(internal, []*cel.Type{cel.ObjectType("http.Request"), cel.ListType(cel.StringType)}, cel.BoolType),
				cel.SingletonBinaryBinding(caddyhttp.CELMatcherRuntimeFunction(internal, build))),
		)
		program = append(program, cel.CustomDecorator(caddyhttp.CELMatcherDecorator(internal, build)))
	}
	return caddyhttp.NewMatcherCELLibrary(env, program), nil
}

// expandNames makes f('a', 'b') a call of the internal function with the request
// and a list.
func expandNames(internal string, any bool) parser.MacroExpander {
	return func(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
		if len(args) == 0 && !any {
			return nil, eh.NewError(0, "name at least one client")
		}
		for _, arg := range args {
			if arg.Kind() != ast.LiteralKind || arg.AsLiteral().Type() != cel.StringType {
				return nil, eh.NewError(arg.ID(), "names must be string literals")
			}
		}
		return eh.NewCall(internal, eh.NewIdent(caddyhttp.CELRequestVarName), eh.NewList(args...)), nil
	}
}
