// Choices of a board and what stands for them in expressions.
import type { Board, Request, Variable } from './board';
import { labelValues } from './prometheus';

/** What a variable is: what stands in expressions, what people read, and what there is to choose from. */
export interface Value {
  label: string;
  text: string;
  inserted: string;
  choices: string[];
}

export type Values = Map<string, Value>;

/** Replaces `$name`, `${name}` and `${name:format}`; what is not known stays, as in Grafana. */
export function insert(text: string, values: ReadonlyMap<string, string>): string {
  return text.replace(/\$(?:\{(\w+)(?::\w+)?\}|(\w+))/g, (whole, braced?: string, bare?: string) => {
    return values.get(braced ?? bare ?? '') ?? whole;
  });
}

/** What stands for each variable. */
export function inserted(values: Values): Map<string, string> {
  return new Map([...values].map(([name, value]) => [name, value.inserted]));
}

/** Resolves all variables in their order, since later ones are asked within earlier ones. */
export async function resolve(board: Board, request: Request): Promise<Values> {
  const values: Values = new Map();
  for (const variable of board.templating.list) {
    values.set(variable.name, await valueOf(variable, values, request));
  }
  return values;
}

async function valueOf(variable: Variable, earlier: Values, request: Request): Promise<Value> {
  const { name, label } = variable;
  switch (variable.type) {
    case 'datasource':
      return { label, text: 'Prometheus', inserted: 'prometheus', choices: ['Prometheus'] };
    case 'query': {
      const query = typeof variable.query === 'string' ? variable.query : variable.query.query;
      const choices = await labelValues(insert(query, inserted(earlier)), request);
      return choose(variable, choices, request.chosen[name] ?? []);
    }
    default:
      throw new Error(`variable ${name} is of type ${variable.type}, which the preview does not know`);
  }
}

function choose(variable: Variable, choices: string[], chosen: string[]): Value {
  const { name, label, includeAll, allValue } = variable;
  const unknown = chosen.filter((value) => !choices.includes(value));
  if (unknown.length > 0) {
    throw new Error(`variable ${name} has no value ${unknown.join(', ')}: it has ${choices.join(', ')}`);
  }
  if (chosen.length > 0) {
    return { label, text: chosen.join(' + '), inserted: oneOf(chosen), choices };
  }
  if (includeAll) {
    return { label, text: 'All', inserted: allValue ?? oneOf(choices), choices };
  }
  const first = choices[0] ?? '';
  return { label, text: first, inserted: first, choices };
}

/** As the Prometheus data source writes several values. */
function oneOf(values: string[]): string {
  const escaped = values.map((value) => value.replace(/[\\^$.*+?()[\]{}|]/g, '\\\\$&'));
  return escaped.length === 1 ? (escaped[0] ?? '') : `(${escaped.join('|')})`;
}
