/* eslint-disable */
/**
 * Written by `duly codegen` from the app 'examples.shop'. Run it again rather than edit this.
 */

import { anyApi } from "convex/server";

export const api = anyApi;
